#include "libafm/nn/quantize_rounding.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <mutex>

#include "libafm/nn/cpu_kernels.h"
#include "libafm/nn/parallel.h"

namespace afm::nn {
namespace {

constexpr int64_t kElementsPerPiece = 1 << 15;

// Note [Largest by bits]
// Absolute values are compared as integers: their order is the same, and a NaN is the largest of all, so it is not
// lost.
__attribute__((always_inline)) inline int32_t absolute_bits(float x) {
  return std::bit_cast<int32_t>(x) & std::numeric_limits<int32_t>::max();
}

AFM_VECTORIZED void largest_of_rows(const float* __restrict x, int64_t rows, int64_t stride, int64_t width,
                                    int32_t* __restrict largest) {
  for (int64_t r = 0; r < rows; ++r) {
    int32_t most = largest[r];
    for (int64_t c = 0; c < width; ++c) most = std::max(most, absolute_bits(x[r * stride + c]));
    largest[r] = most;
  }
}

AFM_VECTORIZED void largest_of_columns(const float* __restrict x, int64_t rows, int64_t stride, int64_t width,
                                       int32_t* __restrict largest) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < width; ++c) largest[c] = std::max(largest[c], absolute_bits(x[r * stride + c]));
  }
}

// Adding and subtracting 1.5 * 2^23 rounds half to even, as the processor does, and leaves +0 for a zero.
__attribute__((always_inline)) inline float rounded(float x, float scale) {
  constexpr float kShift = 12582912.0F;
  return ((x / (scale == 0.0F ? 1.0F : scale) + kShift) - kShift) * scale;
}

AFM_VECTORIZED void round_rows(const float* x, int64_t rows, int64_t stride, int64_t width, const float* scale,
                               float* y) {
  for (int64_t r = 0; r < rows; ++r) {
#pragma GCC ivdep
    for (int64_t c = 0; c < width; ++c) y[r * stride + c] = rounded(x[r * stride + c], scale[r]);
  }
}

AFM_VECTORIZED void round_columns(const float* x, int64_t rows, int64_t stride, int64_t width, const float* scale,
                                  float* y) {
  for (int64_t r = 0; r < rows; ++r) {
#pragma GCC ivdep
    for (int64_t c = 0; c < width; ++c) y[r * stride + c] = rounded(x[r * stride + c], scale[c]);
  }
}

template <typename Work>
void for_pieces_of(const ScaleBlock& block, const Work& work) {
  if (block.rows * block.width == 0) return;
  parallel_for_pieces(block.rows, std::max<int64_t>(1, kElementsPerPiece / block.width), work);
}

void find_largest(const float* x, const ScaleBlock& block, int32_t* largest) {
  std::mutex merging;
  for_pieces_of(block, [&](int64_t begin, int64_t end) {
    const float* first = x + block.start + begin * block.stride;
    if (block.by == ScaleBy::kRow) {
      return largest_of_rows(first, end - begin, block.stride, block.width, largest + begin);
    }
    std::vector<int32_t> mine(static_cast<std::size_t>(block.width), 0);
    largest_of_columns(first, end - begin, block.stride, block.width, mine.data());
    const std::lock_guard lock(merging);
    for (std::size_t c = 0; c < mine.size(); ++c) largest[c] = std::max(largest[c], mine[c]);
  });
}

void round_block(const float* x, const ScaleBlock& block, const float* scale, float* y) {
  for_pieces_of(block, [&](int64_t begin, int64_t end) {
    const int64_t first = block.start + begin * block.stride;
    if (block.by == ScaleBy::kRow) {
      round_rows(x + first, end - begin, block.stride, block.width, scale + begin, y + first);
    } else {
      round_columns(x + first, end - begin, block.stride, block.width, scale, y + first);
    }
  });
}

}  // namespace

float scale_of(float largest, Bits bits) {
  const auto exact = static_cast<float>(static_cast<double>(largest) / scale_divisor(bits));
  if (!std::isfinite(exact)) return exact;
  if (exact < std::numeric_limits<float>::min()) return 0.0F;
  return std::bit_cast<float>((std::bit_cast<int32_t>(exact) + 0xFFFF) & ~0xFFFF);
}

void round_with_kernels(const float* x, Bits bits, const ScaleGroups& groups, float* y) {
  std::vector<int32_t> largest(static_cast<std::size_t>(groups.count), 0);
  for (const ScaleBlock& block : groups.blocks) find_largest(x, block, largest.data() + block.first_group);
  std::vector<float> scale(largest.size());
  std::ranges::transform(largest, scale.begin(),
                         [bits](int32_t most) { return scale_of(std::bit_cast<float>(most), bits); });
  for (const ScaleBlock& block : groups.blocks) round_block(x, block, scale.data() + block.first_group, y);
}

}  // namespace afm::nn
