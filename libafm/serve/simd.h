#pragma once

// Which instructions the kernels of the scorer use. Results differ in the order of sums alone.

#include <array>
#include <string_view>
#include <type_traits>

// What libafm_serve.so shows, beside its C interface.
#define AFM_SERVE_EXPORT [[gnu::visibility("default")]]

namespace afm::serve {

enum class Simd { kPortable, kAvx2, kAvx512 };
constexpr std::array<std::string_view, 3> enum_names(std::type_identity<Simd>) {
  return {"portable", "avx2", "avx512"};
}

AFM_SERVE_EXPORT Simd best_simd();  // the best that this processor and this build have

}  // namespace afm::serve
