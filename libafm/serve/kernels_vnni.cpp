// Linear layers of integers on processors that multiply bytes (AVX-512 VNNI): 64 products an instruction instead of 16,
// and weights are never widened. Compiled with the flags of kernels_avx512.cpp and -mavx512vnni.
//
// Note [Three bytes]
// An activation is rounded to q = round(x / step) + 2^23, step = max |x| / 8388600 over its row: 24 bits, what a
// float has. q is three bytes, so that sum_j w_ij x_j is exact in three sums of products of bytes:
//   step (65536 (H_i - 128 sum_j w_ij) + 256 M_i + L_i)
// The error is at most 2^-24 max |x| sum_j |w_ij|. A sum of floats errs by about 2^-24 sum_j |w_ij| |x_j|, which is as
// much when the largest activation is not far above the others. Where it is, or is no number, the floats' path serves.

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own header starts undefined registers from themselves
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include "libafm/serve/kernel_tables.h"

#define AFM_INLINE inline __attribute__((always_inline))
#define AFM_UNROLL _Pragma("GCC unroll 16")  // a register that is reached by an index lives in memory

namespace afm::serve {
namespace {

constexpr int64_t kPanel = 16, kStepBytes = 64;
constexpr int kMaxRows = 4;              // of a tile of two panels: 24 of 32 registers are sums
constexpr int64_t kBlock = 32;           // rows that are turned into integers at once
constexpr float kLargest = 8388600;      // what rounding may add stays below 2^23
constexpr int64_t kMostColumns = 65536;  // so many products of 255 and 127 fit 32 bits
constexpr float kMostAboveMean = 32;     // max |x| / mean |x| of what is not zero, see the note

// Rows of x as integers: row r has its highest bytes at bytes + 3 r stride, then the middle ones, then the lowest.
struct Integers {
  const uint8_t* bytes;
  int64_t stride;  // a multiple of 16, columns behind the last are 0
  const float* step;
};

struct Rows {
  const PackedMatrix& matrix;
  const LinearCall& call;  // of these rows alone
  Integers x;
};

AFM_INLINE __mmask16 first(int64_t count) { return static_cast<__mmask16>(count >= 16 ? 0xFFFF : (1U << count) - 1); }

// The columns from j on, up to 16, times their scales; zeros behind the last.
AFM_INLINE __m512 scaled(const PackedMatrix& matrix, const float* x, int64_t j) {
  const bool whole = j + kPanel <= matrix.columns;
  const __mmask16 mask = whole ? 0xFFFF : first(matrix.columns - j);
  const __m512 values = whole ? _mm512_loadu_ps(x + j) : _mm512_maskz_loadu_ps(mask, x + j);
  if (matrix.column_scale == nullptr) return values;
  return _mm512_mul_ps(values, _mm512_maskz_loadu_ps(mask, matrix.column_scale + j));
}

// The step of a row; negative when the row needs floats.
float step_of(const PackedMatrix& matrix, const float* x) {
  __m512 largest = _mm512_setzero_ps(), total = _mm512_setzero_ps();
  int others = 0;  // that are not zero
  for (int64_t j = 0; j < matrix.columns; j += kPanel) {
    const __m512 size = _mm512_abs_ps(scaled(matrix, x, j));
    largest = _mm512_max_ps(size, largest);
    total = _mm512_add_ps(total, size);
    others += __builtin_popcount(_mm512_cmp_ps_mask(size, _mm512_setzero_ps(), _CMP_NEQ_UQ));
  }
  const float most = _mm512_reduce_max_ps(largest), sum = _mm512_reduce_add_ps(total);
  if (most == 0 && sum == 0) return 0;
  // `sum` is neither infinite nor NaN when this holds, and kLargest / most is finite.
  const bool even = sum < __FLT_MAX__ && most > 1e-30F && most * static_cast<float>(others) <= kMostAboveMean * sum;
  return even ? most / kLargest : -1;
}

// The lowest byte of each.
AFM_INLINE void store_bytes(uint8_t* to, __m512i words) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(words));
}

void write_integers(const PackedMatrix& matrix, const float* x, float step, int64_t stride, uint8_t* to) {
  const __m512 inverse = _mm512_set1_ps(step == 0 ? 0 : 1 / step);
  for (int64_t j = 0; j < stride; j += kPanel) {
    const __m512i near = _mm512_cvtps_epi32(_mm512_mul_ps(scaled(matrix, x, j), inverse));
    const __m512i q = _mm512_add_epi32(near, _mm512_set1_epi32(1 << 23));
    store_bytes(to + j, _mm512_srli_epi32(q, 16));
    store_bytes(to + stride + j, _mm512_srli_epi32(q, 8));
    store_bytes(to + 2 * stride + j, q);
  }
}

// Of a tile: by row and byte, by panel. Loops over them are recursions, so that each has its own name for the compiler:
// a sum that is reached by an index lives in memory.
template <int R, int P>
struct Sums {
  __m512i of[3 * R][P];
};

AFM_INLINE __m512i broadcast(const uint8_t* four) {
  int32_t word;
  __builtin_memcpy(&word, four, sizeof word);
  return _mm512_set1_epi32(word);
}

// GCC 12 copies and spills 24 sums when it is given the intrinsic, which costs half of the speed.
AFM_INLINE void add_product(__m512i& sum, __m512i four_bytes, __m512i weights) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(four_bytes), "v"(weights));
}

// Four columns, whose weights are signed bytes.
template <int R, int P, int I = 0>
AFM_INLINE void add_products(const __m512i (&weights)[P], const uint8_t* x, int64_t stride, Sums<R, P>& sums) {
  if constexpr (I < 3 * R) {
    const __m512i value = broadcast(x + I * stride);
    add_product(sums.of[I][0], value, weights[0]);
    if constexpr (P > 1) add_product(sums.of[I][1], value, weights[1]);
    if constexpr (P > 2) add_product(sums.of[I][2], value, weights[2]);
    if constexpr (P > 3) add_product(sums.of[I][3], value, weights[3]);
    add_products<R, P, I + 1>(weights, x, stride, sums);
  }
}

AFM_INLINE __m512i signed_bytes(__m512i low_bits) {
  const __m128i values = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), _mm512_and_si512(low_bits, _mm512_set1_epi8(15)));
}

struct Int8 {
  static constexpr int64_t kColumns = 4;
  template <int R, int P>
  AFM_INLINE static void add(const __m512i (&codes)[P], const uint8_t* x, int64_t stride, Sums<R, P>& sums) {
    add_products<R, P>(codes, x, stride, sums);
  }
};

struct Int4 {
  static constexpr int64_t kColumns = 8;
  template <int R, int P>
  AFM_INLINE static void add(const __m512i (&codes)[P], const uint8_t* x, int64_t stride, Sums<R, P>& sums) {
    __m512i weights[P];
    AFM_UNROLL for (int p = 0; p < P; ++p) weights[p] = signed_bytes(codes[p]);
    add_products<R, P>(weights, x, stride, sums);
    AFM_UNROLL for (int p = 0; p < P; ++p) weights[p] = signed_bytes(_mm512_srli_epi16(codes[p], 4));
    add_products<R, P>(weights, x + 4, stride, sums);
  }
};

struct Place {
  int64_t row, panel;
};

// Of a row, the sums of its three bytes in one panel become outputs.
AFM_INLINE void finish_panel(const Rows& rows, int64_t row, int64_t output, __m512i high, __m512i middle, __m512i low) {
  const __mmask16 mask = first(rows.matrix.rows - output);
  __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(middle), _mm512_set1_ps(256), _mm512_cvtepi32_ps(low));
  y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(high, _mm512_loadu_si512(rows.matrix.offsets + output))),
                      _mm512_set1_ps(65536), y);
  __m512 scale = _mm512_set1_ps(rows.x.step[row]);
  if (rows.matrix.row_scale != nullptr) scale = _mm512_mul_ps(scale, _mm512_loadu_ps(rows.matrix.row_scale + output));
  y = _mm512_mul_ps(y, scale);
  if (rows.call.bias != nullptr) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask, rows.call.bias + output));
  if (rows.call.relu) y = _mm512_max_ps(_mm512_setzero_ps(), y);
  _mm512_mask_storeu_ps(rows.call.y + row * rows.call.y_stride + output, mask, y);
}

// Sums [rows][3][panels] of a tile. Not unrolled: the rarer tiles share it.
__attribute__((noinline)) void finish(const Rows& rows, Place place, const __m512i* sums, int count, int panels) {
  for (int r = 0; r < count; ++r) {
    for (int p = 0; p < panels; ++p) {
      const __m512i* of = sums + 3 * panels * r + p;
      finish_panel(rows, place.row + r, kPanel * (place.panel + p), of[0], of[panels], of[2 * panels]);
    }
  }
}

template <class Weights, int R, int P>
void compute_tile(const Rows& rows, Place place) {
  const int64_t steps = (rows.matrix.columns + Weights::kColumns - 1) / Weights::kColumns;
  const char* panels = static_cast<const char*>(rows.matrix.elements) + kStepBytes * steps * place.panel;
  const uint8_t* x = rows.x.bytes + 3 * rows.x.stride * place.row;
  const int64_t ahead = steps < 64 ? P * steps : 16;  // short panels end before the processor foresees the next tile
  Sums<R, P> sums = {};
  for (int64_t s = 0; s < steps; ++s) {
    __m512i codes[P];
    AFM_UNROLL for (int p = 0; p < P; ++p) codes[p] = _mm512_loadu_si512(panels + kStepBytes * (s + p * steps));
    if constexpr (R == 1) {
      AFM_UNROLL for (int p = 0; p < P; ++p) __builtin_prefetch(panels + kStepBytes * (s + p * steps + ahead));
    }
    Weights::template add<R, P>(codes, x + Weights::kColumns * s, rows.x.stride, sums);
  }
  if constexpr (P > 1 && R != 2) {  // most of the work
    AFM_UNROLL for (int r = 0; r < R; ++r) {
      AFM_UNROLL for (int p = 0; p < P; ++p) {
        finish_panel(rows, place.row + r, kPanel * (place.panel + p), sums.of[3 * r][p], sums.of[3 * r + 1][p],
                     sums.of[3 * r + 2][p]);
      }
    }
  } else {
    __m512i totals[3 * R * P];
    AFM_UNROLL for (int i = 0; i < 3 * R; ++i) {
      AFM_UNROLL for (int p = 0; p < P; ++p) totals[i * P + p] = sums.of[i][p];
    }
    finish(rows, place, totals, R, P);
  }
}

template <class Weights>
void compute_row(const Rows& rows, int64_t row) {
  const int64_t panels = (rows.matrix.rows + kPanel - 1) / kPanel;
  int64_t panel = 0;
  for (; panel + 4 <= panels; panel += 4) compute_tile<Weights, 1, 4>(rows, {row, panel});
  for (; panel < panels; ++panel) compute_tile<Weights, 1, 1>(rows, {row, panel});
}

// All rows but the last of an odd number.
template <class Weights, int P>
void compute_panels(const Rows& rows, int64_t panel) {
  int64_t row = 0;
  for (; row + kMaxRows <= rows.call.rows; row += kMaxRows) compute_tile<Weights, kMaxRows, P>(rows, {row, panel});
  if (row + 2 <= rows.call.rows) compute_tile<Weights, 2, P>(rows, {row, panel});
}

template <class Weights>
void compute_block(const Rows& rows) {
  const int64_t panels = (rows.matrix.rows + kPanel - 1) / kPanel;
  int64_t panel = 0;
  for (; panel + 2 <= panels; panel += 2) compute_panels<Weights, 2>(rows, panel);
  if (panel < panels) compute_panels<Weights, 1>(rows, panel);
  if (rows.call.rows % 2 != 0) compute_row<Weights>(rows, rows.call.rows - 1);
}

// At most kBlock rows.
void linear_of_block(const PackedMatrix& matrix, const LinearCall& call) {
  const int64_t stride = (matrix.columns + kPanel - 1) / kPanel * kPanel;
  float* steps = call.scratch;
  auto* bytes = reinterpret_cast<uint8_t*>(call.scratch + kBlock);
  for (int64_t r = 0; r < call.rows; ++r) {
    const float* x = call.x + r * call.x_stride;
    steps[r] = step_of(matrix, x);
    if (steps[r] < 0) return kernels_avx512().linear(matrix, call);
    write_integers(matrix, x, steps[r], stride, bytes + 3 * stride * r);
  }
  const Rows rows{.matrix = matrix, .call = call, .x = {.bytes = bytes, .stride = stride, .step = steps}};
  matrix.bits == Bits::kInt8 ? compute_block<Int8>(rows) : compute_block<Int4>(rows);
}

}  // namespace

void linear_vnni(const PackedMatrix& matrix, const LinearCall& call) {
  if (matrix.bits == Bits::kFloat || matrix.columns > kMostColumns) return kernels_avx512().linear(matrix, call);
  LinearCall block = call;
  for (int64_t first_row = 0; first_row < call.rows; first_row += kBlock) {
    block.x = call.x + first_row * call.x_stride;
    block.y = call.y + first_row * call.y_stride;
    block.rows = call.rows - first_row < kBlock ? call.rows - first_row : kBlock;
    linear_of_block(matrix, block);
  }
}

}  // namespace afm::serve
