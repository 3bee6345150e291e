#include "libafm/serve/kernels.h"

#include "libafm/serve/kernel_tables.h"

namespace afm::serve {

Simd best_simd() {
#ifdef AFM_SERVE_X86
  __builtin_cpu_init();
  const auto has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    return Simd::kAvx512;
  }
  if (has_avx2) return Simd::kAvx2;
#endif
  return Simd::kPortable;
}

#ifdef AFM_SERVE_X86
namespace {

const Kernels& best_kernels_avx512() {
  static const Kernels kernels = [] {
    Kernels table = kernels_avx512();
    if (__builtin_cpu_supports("avx512vnni")) table.linear = linear_vnni;
    return table;
  }();
  return kernels;
}

}  // namespace
#endif

const Kernels& kernels(Simd simd) {
#ifdef AFM_SERVE_X86
  const Simd best = best_simd();
  if (simd == Simd::kAvx512 && best == Simd::kAvx512) return best_kernels_avx512();
  if (simd != Simd::kPortable && best != Simd::kPortable) return kernels_avx2();
#endif
  static_cast<void>(simd);
  return kernels_portable();
}

}  // namespace afm::serve
