#pragma once

// The version of the library and of the files that it writes.

#include <cstdint>
#include <string_view>

namespace afm {

inline constexpr std::string_view kVersion = "0.1.0";
// Every file states the version of its format; a reader refuses a newer one by name.
inline constexpr int64_t kFormatVersion = 1;

}  // namespace afm
