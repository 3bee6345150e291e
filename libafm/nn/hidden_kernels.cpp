#include "libafm/nn/hidden_kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include <ATen/CPUGeneratorImpl.h>

#include "libafm/nn/cpu_kernels.h"
#include "libafm/nn/dropout_generator.h"
#include "libafm/nn/parallel.h"

namespace afm::nn {
namespace {

// 64 rows of 400 floats fit the second-level cache, and a float sum of 64 numbers is good to 4e-6.
constexpr int64_t kRowsPerPiece = 64;

// Bijections whose output bits all depend on all input bits: murmur3's 64-bit finalizer, and C. Wellons' lowbias32.
inline uint64_t mixed64(uint64_t x) {
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdULL;
  x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ULL;
  return x ^ (x >> 33);
}
__attribute__((always_inline)) inline uint32_t mixed32(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352dU;
  x = (x ^ (x >> 15)) * 0x846ca68bU;
  return x ^ (x >> 16);
}

// NaN passes, as in torch.
__attribute__((always_inline)) inline float relu(float x) { return x < 0.0F ? 0.0F : x; }

AFM_VECTORIZED void piece_moments(const float* __restrict x, Matrix size, float* __restrict mean,
                                  float* __restrict squares) {
  std::fill(mean, mean + size.columns, 0.0F);
  std::fill(squares, squares + size.columns, 0.0F);
  for (int64_t r = 0; r < size.rows; ++r) {
    for (int64_t c = 0; c < size.columns; ++c) mean[c] += x[r * size.columns + c];
  }
  const float share = 1.0F / static_cast<float>(size.rows);
  for (int64_t c = 0; c < size.columns; ++c) mean[c] *= share;
  for (int64_t r = 0; r < size.rows; ++r) {
    for (int64_t c = 0; c < size.columns; ++c) {
      const float deviation = x[r * size.columns + c] - mean[c];
      squares[c] += deviation * deviation;
    }
  }
}

AFM_VECTORIZED void normalize_row(const float* __restrict x, int64_t columns, const float* __restrict mean,
                                  const float* __restrict gain, const float* __restrict shift, float* __restrict y) {
  for (int64_t c = 0; c < columns; ++c) y[c] = relu((x[c] - mean[c]) * gain[c] + shift[c]);
}

AFM_VECTORIZED void normalize_drop_row(const float* __restrict x, int64_t columns, const float* __restrict mean,
                                       const float* __restrict gain, const float* __restrict shift,
                                       const uint32_t* __restrict keys, uint32_t row_key, uint32_t threshold,
                                       float* __restrict y) {
  for (int64_t c = 0; c < columns; ++c) {
    const float active = relu((x[c] - mean[c]) * gain[c] + shift[c]);
    y[c] = mixed32(keys[c] ^ row_key) >= threshold ? active : 0.0F;
  }
}

AFM_VECTORIZED void activate_row(float* __restrict x, int64_t columns) {
  for (int64_t c = 0; c < columns; ++c) x[c] = relu(x[c]);
}

AFM_VECTORIZED void activate_drop_row(float* __restrict x, int64_t columns, const uint32_t* __restrict keys,
                                      uint32_t row_key, uint32_t threshold, float scale) {
  for (int64_t c = 0; c < columns; ++c) {
    const float active = relu(x[c]) * scale;
    x[c] = mixed32(keys[c] ^ row_key) >= threshold ? active : 0.0F;
  }
}

// grad_x may be grad_y, so they are not restricted; no element depends on another.
AFM_VECTORIZED void differentiate_rows(const float* grad_y, const float* y, int64_t count, float scale, float* grad_x) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) grad_x[i] = y[i] <= 0.0F ? 0.0F : grad_y[i] * scale;
}

AFM_VECTORIZED void differentiate_and_sum_row(const float* grad_y, const float* y, const float* x, const float* mean,
                                              int64_t columns, float scale, float* grad_x, float* plain,
                                              float* weighted) {
#pragma GCC ivdep
  for (int64_t c = 0; c < columns; ++c) {
    const float g = y[c] <= 0.0F ? 0.0F : grad_y[c] * scale;
    grad_x[c] = g;
    plain[c] += g;
    weighted[c] += g * (x[c] - mean[c]);
  }
}

AFM_VECTORIZED void finish_row(float* __restrict grad_x, const float* __restrict x, const float* __restrict mean,
                               int64_t columns, const float* __restrict a, const float* __restrict b,
                               const float* __restrict c) {
  for (int64_t i = 0; i < columns; ++i) grad_x[i] = grad_x[i] * a[i] + (x[i] - mean[i]) * b[i] + c[i];
}

int64_t piece_count(Matrix size) { return (size.rows + kRowsPerPiece - 1) / kRowsPerPiece; }

// Two rows of `columns` floats for each piece.
std::vector<float> piece_buffer(Matrix size) {
  return std::vector<float>(static_cast<std::size_t>(2 * piece_count(size) * size.columns));
}

}  // namespace

Dropout::Dropout(double rate) {
  if (rate <= 0) return;
  at::Generator generator = dropout_generator();
  const std::scoped_lock lock(generator.mutex());
  seed_ = at::check_generator<at::CPUGeneratorImpl>(generator)->random64();
  const double largest = std::numeric_limits<uint32_t>::max();
  threshold_ = static_cast<uint32_t>(std::clamp(std::round(rate * 4294967296.0), 1.0, largest));
  scale_ = static_cast<float>(1 / (1 - rate));
}

std::vector<uint32_t> Dropout::column_keys(int64_t columns) const {
  std::vector<uint32_t> keys(static_cast<std::size_t>(columns));
  const uint64_t seed = mixed64(seed_ ^ 0x9e3779b97f4a7c15ULL);  // another stream than the rows
  for (std::size_t c = 0; c < keys.size(); ++c) keys[c] = static_cast<uint32_t>(mixed64(seed + c));
  return keys;
}

uint32_t Dropout::row_key(int64_t row) const {
  return static_cast<uint32_t>(mixed64(mixed64(seed_) + static_cast<uint64_t>(row)));
}

ColumnMoments column_moments(const float* x, Matrix size) {
  const auto columns = static_cast<std::size_t>(size.columns);
  std::vector<float> pieces = piece_buffer(size);
  parallel_for_pieces(size.rows, kRowsPerPiece, [&](int64_t begin, int64_t end) {
    float* mean = pieces.data() + 2 * (begin / kRowsPerPiece) * size.columns;
    piece_moments(x + begin * size.columns, {end - begin, size.columns}, mean, mean + size.columns);
  });
  ColumnMoments total{std::vector<double>(columns), std::vector<double>(columns)};
  for (int64_t piece = 0; piece < piece_count(size); ++piece) {
    const float* mean = pieces.data() + 2 * piece * size.columns;
    const auto before = static_cast<double>(piece * kRowsPerPiece);
    const auto count = static_cast<double>(std::min(kRowsPerPiece, size.rows - piece * kRowsPerPiece));
    const double share = count / (before + count);
    for (std::size_t c = 0; c < columns; ++c) {
      const double delta = mean[c] - total.mean[c];
      total.mean[c] += delta * share;
      total.squares[c] += mean[columns + c] + delta * delta * before * share;
    }
  }
  return total;
}

void normalize_activate_drop(const float* x, Matrix size, const float* mean, const std::vector<float>& gain,
                             const std::vector<float>& shift, const Dropout& dropout, float* y) {
  const auto keys = dropout.column_keys(dropout.threshold() > 0 ? size.columns : 0);
  parallel_for_pieces(size.rows, kRowsPerPiece, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* from = x + r * size.columns;
      float* to = y + r * size.columns;
      if (dropout.threshold() == 0) {
        normalize_row(from, size.columns, mean, gain.data(), shift.data(), to);
      } else {
        normalize_drop_row(from, size.columns, mean, gain.data(), shift.data(), keys.data(), dropout.row_key(r),
                           dropout.threshold(), to);
      }
    }
  });
}

void activate_drop(float* x, Matrix size, const Dropout& dropout) {
  const auto keys = dropout.column_keys(dropout.threshold() > 0 ? size.columns : 0);
  parallel_for_pieces(size.rows, kRowsPerPiece, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = x + r * size.columns;
      if (dropout.threshold() == 0) {
        activate_row(row, size.columns);
      } else {
        activate_drop_row(row, size.columns, keys.data(), dropout.row_key(r), dropout.threshold(), dropout.scale());
      }
    }
  });
}

void differentiate_activation(const float* grad_y, const float* y, Matrix size, float scale, float* grad_x) {
  parallel_for_pieces(size.rows, kRowsPerPiece, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * size.columns;
    differentiate_rows(grad_y + first, y + first, (end - begin) * size.columns, scale, grad_x + first);
  });
}

GradientSums differentiate_and_sum(const float* grad_y, const float* y, const float* x, const float* mean, Matrix size,
                                   float scale, float* grad_x) {
  const auto columns = static_cast<std::size_t>(size.columns);
  std::vector<float> pieces = piece_buffer(size);
  parallel_for_pieces(size.rows, kRowsPerPiece, [&](int64_t begin, int64_t end) {
    float* plain = pieces.data() + 2 * (begin / kRowsPerPiece) * size.columns;
    for (int64_t r = begin; r < end; ++r) {
      const int64_t first = r * size.columns;
      differentiate_and_sum_row(grad_y + first, y + first, x + first, mean, size.columns, scale, grad_x + first, plain,
                                plain + size.columns);
    }
  });
  GradientSums total{std::vector<double>(columns), std::vector<double>(columns)};
  for (int64_t piece = 0; piece < piece_count(size); ++piece) {
    const float* plain = pieces.data() + 2 * piece * size.columns;
    for (std::size_t c = 0; c < columns; ++c) {
      total.plain[c] += plain[c];
      total.weighted[c] += plain[columns + c];
    }
  }
  return total;
}

void finish_norm_gradient(float* grad_x, const float* x, const float* mean, Matrix size, const std::vector<float>& a,
                          const std::vector<float>& b, const std::vector<float>& c) {
  parallel_for_pieces(size.rows, kRowsPerPiece, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      finish_row(grad_x + r * size.columns, x + r * size.columns, mean, size.columns, a.data(), b.data(), c.data());
    }
  });
}

}  // namespace afm::nn
