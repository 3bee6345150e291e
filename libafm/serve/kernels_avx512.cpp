// Compiled with -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma; runs where best_simd() finds these.

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own header starts undefined registers from themselves
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include "libafm/serve/kernel_tables.h"

#define AFM_INLINE inline __attribute__((always_inline))
#define AFM_UNROLL _Pragma("GCC unroll 16")  // a sum that is reached by an index lives in memory

namespace afm::serve {
namespace {

using Lanes = __m512;
using Codes = __m512i;

// 24 of 32 registers are sums, two are weights.
constexpr int kMaxPanels = 2, kSums = 8;
using FullTiles = Heights<12, 8, 6, 4, 3, 2, 1>;
using LastTiles = Heights<4, 2, 1>;
using FewTiles = Heights<1>;

AFM_INLINE Lanes zero() { return _mm512_setzero_ps(); }
AFM_INLINE Lanes broadcast(const float* x) { return _mm512_set1_ps(*x); }
AFM_INLINE Lanes load(const float* from) { return _mm512_loadu_ps(from); }
AFM_INLINE void store(float* to, Lanes lanes) { _mm512_storeu_ps(to, lanes); }
AFM_INLINE __mmask16 first(int64_t count) { return static_cast<__mmask16>(count >= 16 ? 0xFFFF : (1U << count) - 1); }
AFM_INLINE Lanes load_first(const float* from, int64_t count) { return _mm512_maskz_loadu_ps(first(count), from); }
AFM_INLINE void store_first(float* to, int64_t count, Lanes lanes) { _mm512_mask_storeu_ps(to, first(count), lanes); }
AFM_INLINE Lanes add(Lanes a, Lanes b) { return _mm512_add_ps(a, b); }
AFM_INLINE Lanes subtract(Lanes a, Lanes b) { return _mm512_sub_ps(a, b); }
AFM_INLINE Lanes mul(Lanes a, Lanes b) { return _mm512_mul_ps(a, b); }
AFM_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }
AFM_INLINE Lanes relu(Lanes a) { return _mm512_max_ps(zero(), a); }  // in this order NaN stays NaN
AFM_INLINE float sum(Lanes a) { return _mm512_reduce_add_ps(a); }
AFM_INLINE Codes load_codes(const char* from) { return _mm512_loadu_si512(from); }
template <int Bit>
AFM_INLINE Lanes int8_at(Codes codes) {
  return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(codes, 24 - Bit), 24));
}
// A permutation looks only at the low four bits of an index: it is the conversion.
template <int Bit>
AFM_INLINE Lanes int4_at(Codes codes) {
  const Lanes values = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
  return _mm512_permutexvar_ps(_mm512_srli_epi32(codes, Bit), values);
}

AFM_INLINE Lanes int8_first(const int8_t* from, int64_t count) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first(count), from)));
}
// The byte of each element goes to its 32 bits, then its four bits to the bottom.
AFM_INLINE Lanes int4_first(const uint8_t* from, bool odd, int64_t count) {
  const __m128i bytes = _mm_maskz_loadu_epi8(first((count + odd + 1) / 2), from);
  const __m128i position = _mm_srli_epi16(
      _mm_add_epi8(_mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm_set1_epi8(odd ? 1 : 0)), 1);
  const __m512i spread = _mm512_cvtepu8_epi32(_mm_shuffle_epi8(bytes, _mm_and_si128(position, _mm_set1_epi8(15))));
  const __m512i even_shift = _mm512_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4);
  const __m512i shift = odd ? _mm512_sub_epi32(_mm512_set1_epi32(4), even_shift) : even_shift;
  const Lanes values = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
  return _mm512_maskz_permutexvar_ps(first(count), _mm512_srlv_epi32(spread, shift), values);
}

#include "libafm/serve/kernels_linear.inl"
#include "libafm/serve/kernels_rows.inl"

// One row by groups of panels: see Note [Three-byte weights] in matrix.cpp.
constexpr int kGroup = 4;  // panels

// The lowest bytes of each word of a, b and c, in the places 2^8, 2^16 and 2^24.
AFM_INLINE Codes low_bytes(Codes a, Codes b, Codes c) {
  const __m512i first_byte = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
  const __m512i two = _mm512_mask_shuffle_epi8(_mm512_slli_epi32(a, 8), 0xCCCCCCCCCCCCCCCC, b, first_byte);
  return _mm512_mask_shuffle_epi8(two, 0x8888888888888888, c, first_byte);
}

// The weights of one column, in steps of their rows, times its activation.
AFM_INLINE void add_group_column(const Tile& tile, int64_t column, Lanes (&sums)[kGroup]) {
  const char* words = tile.panels + 3 * kStepBytes * column;
  const Codes a = load_codes(words), b = load_codes(words + kStepBytes), c = load_codes(words + 2 * kStepBytes);
  const Lanes value = broadcast(tile.x + column);
  sums[0] = fma(value, _mm512_cvtepi32_ps(a), sums[0]);
  sums[1] = fma(value, _mm512_cvtepi32_ps(b), sums[1]);
  sums[2] = fma(value, _mm512_cvtepi32_ps(c), sums[2]);
  sums[3] = fma(value, _mm512_cvtepi32_ps(low_bytes(a, b, c)), sums[3]);
}

void compute_group(const Tile& tile, const int32_t* list, int64_t count) {
  Lanes sums[2][kGroup];
  AFM_UNROLL for (int p = 0; p < kGroup; ++p) sums[0][p] = sums[1][p] = zero();
  int64_t k = 0;
  for (; k + 2 <= count; k += 2) {
    add_group_column(tile, list[k], sums[0]);
    add_group_column(tile, list[k + 1], sums[1]);
  }
  if (k < count) add_group_column(tile, list[k], sums[0]);
  AFM_UNROLL for (int p = 0; p < kGroup; ++p) sums[0][p] = add(sums[0][p], sums[1][p]);
  finish(tile, sums[0], 1, kGroup);
}

// Gives the number of panels that it computed: whole groups.
int64_t compute_groups(const PackedMatrix& matrix, const LinearCall& call, const int32_t* list, int64_t count) {
  const int64_t panels = (matrix.rows + kPanel - 1) / kPanel / kGroup * kGroup;
  for (int64_t p = 0; p < panels; p += kGroup) {
    Tile tile = tile_of<FloatPanel>(matrix, call, 0, p, kGroup);
    tile.panels = static_cast<const char*>(matrix.three_bytes) + 3 * kStepBytes * matrix.columns * (p / kGroup);
    tile.scale = matrix.steps + kPanel * p;
    compute_group(tile, list, count);
  }
  return panels;
}

}  // namespace

const Kernels& kernels_avx512() { return kTable; }

}  // namespace afm::serve
