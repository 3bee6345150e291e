// Compiled with -mavx2 -mfma; runs where best_simd() finds these.

#include <immintrin.h>

#include "libafm/serve/kernel_tables.h"

#define AFM_INLINE inline __attribute__((always_inline))
#define AFM_UNROLL _Pragma("GCC unroll 16")  // a sum that is reached by an index lives in memory

namespace afm::serve {
namespace {

struct Lanes {
  __m256 low, high;
};
struct Codes {
  __m256i low, high;
};

// 12 of 16 registers are sums, two are weights.
constexpr int kMaxPanels = 1, kSums = 4;
using FullTiles = Heights<6, 4, 3, 2, 1>;
using LastTiles = FullTiles;
using FewTiles = Heights<4, 2, 1>;

AFM_INLINE Lanes zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
AFM_INLINE Lanes broadcast(const float* x) {
  const __m256 all = _mm256_broadcast_ss(x);
  return {all, all};
}
AFM_INLINE Lanes load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
AFM_INLINE void store(float* to, Lanes lanes) {
  _mm256_storeu_ps(to, lanes.low);
  _mm256_storeu_ps(to + 8, lanes.high);
}
AFM_INLINE __m256i first(int64_t count) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count < 0 ? 0 : count > 8 ? 8 : count)), lanes);
}
AFM_INLINE Lanes load_first(const float* from, int64_t count) {
  if (count >= 16) return load(from);
  return {_mm256_maskload_ps(from, first(count)), _mm256_maskload_ps(from + 8, first(count - 8))};
}
AFM_INLINE void store_first(float* to, int64_t count, Lanes lanes) {
  if (count >= 16) return store(to, lanes);
  _mm256_maskstore_ps(to, first(count), lanes.low);
  _mm256_maskstore_ps(to + 8, first(count - 8), lanes.high);
}
AFM_INLINE Lanes add(Lanes a, Lanes b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
AFM_INLINE Lanes subtract(Lanes a, Lanes b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
AFM_INLINE Lanes mul(Lanes a, Lanes b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
AFM_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
AFM_INLINE Lanes relu(Lanes a) {  // in this order NaN stays NaN
  return {_mm256_max_ps(_mm256_setzero_ps(), a.low), _mm256_max_ps(_mm256_setzero_ps(), a.high)};
}
AFM_INLINE float sum(Lanes a) {
  const __m256 eight = _mm256_add_ps(a.low, a.high);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
AFM_INLINE Codes load_codes(const char* from) {
  const auto* eights = reinterpret_cast<const __m256i*>(from);
  return {_mm256_loadu_si256(eights), _mm256_loadu_si256(eights + 1)};
}
template <int Bit, int Width>
AFM_INLINE __m256 integer_at(__m256i codes) {
  return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(codes, 32 - Width - Bit), 32 - Width));
}
template <int Bit>
AFM_INLINE Lanes int8_at(Codes codes) {
  return {integer_at<Bit, 8>(codes.low), integer_at<Bit, 8>(codes.high)};
}
template <int Bit>
AFM_INLINE Lanes int4_at(Codes codes) {
  return {integer_at<Bit, 4>(codes.low), integer_at<Bit, 4>(codes.high)};
}

#include "libafm/serve/kernels_integers.inl"
#include "libafm/serve/kernels_linear.inl"
#include "libafm/serve/kernels_rows.inl"

// Eight lanes lose by taking words apart what they gain by reading less.
int64_t compute_groups(const PackedMatrix&, const LinearCall&, const int32_t*, int64_t) { return 0; }

}  // namespace

const Kernels& kernels_avx2() { return kTable; }

}  // namespace afm::serve
