#pragma once

// Private: a group of lanes at one row of the table: what it adds up of a run, and what becomes of it.

#include "libafm/cuda/shapes.cuh"
#include "libafm/cuda/table.h"

namespace afm::cuda {

// Where the gradient of a row goes: into a table, or into a step of Adagrad when `squares` is set.
struct Sink {
  float* gradient;
  Adagrad adagrad;
};

template <int kLanes>
__device__ unsigned lanes_mask() {
  if constexpr (kLanes == kWarp) {
    return kWholeWarp;
  } else {
    return ((1U << kLanes) - 1) << (threadIdx.x % kWarp / kLanes * kLanes);
  }
}

// Sums over one run: of each value's gradient, and of the score's.
template <int kColumns>
struct Sums {
  float values[kColumns];
  float score;
  __device__ void clear() {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) values[c] = 0;
    score = 0;
  }
  __device__ void add(const Sums& other) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) values[c] += other.values[c];
    score += other.score;
  }
};

// What a step needs of a row as it is.
template <int kColumns>
struct RowState {
  float values[kColumns];
  float wide, square, wide_square;
};

// A group of lanes at its row: a lane has the columns lane, lane + kLanes, ..., so that lanes side by side touch values
// side by side, wherever the row lies.
template <int lanes, int columns>
class RowWriter {
 public:
  static constexpr int kLanes = lanes, kColumns = columns;
  static constexpr int kRowsAtOnce = 2;  // that a group reads before it writes one
  using Sink = cuda::Sink;
  using State = RowState<kColumns>;

  __device__ RowWriter(const Table& table, const Sink& sink, bool interaction)
      : table_(table), sink_(sink), interaction_(interaction), lane_(threadIdx.x % kLanes) {
    if (sink.adagrad.squares != nullptr) rate_ = *sink.adagrad.rate * sink.adagrad.scale;
  }

  __device__ void read(uint32_t number, RowState<kColumns>& state) const {
    const bool steps = sink_.adagrad.squares != nullptr;
    const float* row = table_.rows + static_cast<int64_t>(number) * table_.stride;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int d = column(c);
      state.values[c] = (interaction_ || steps) && d < table_.dim ? row[d] : 0.0F;
    }
    if (!steps) return;
    const float* squares = squares_of(number);
    state.square = *squares;
    if (!has_wide() || lane_ != 0) return;
    state.wide = row[table_.dim];
    state.wide_square = squares[1];
  }

  // d score / d e_f = sum - e_f: the sum is in `sums`, the row counts once for the whole run.
  __device__ void write(uint32_t number, const Sums<kColumns>& sums, const RowState<kColumns>& state) const {
    float gradient[kColumns];
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      gradient[c] = sums.values[c] - (interaction_ ? state.values[c] * sums.score : 0.0F);
    }
    const int64_t start = static_cast<int64_t>(number) * table_.stride;
    if (sink_.adagrad.squares == nullptr) {
      keep(sink_.gradient + start, gradient, sums.score);
    } else {
      step(number, table_.rows + start, gradient, sums.score, state);
    }
  }

 private:
  __device__ int column(int c) const { return lane_ + c * kLanes; }
  __device__ bool has_wide() const { return table_.stride > table_.dim; }
  __device__ float* squares_of(uint32_t number) const {
    return sink_.adagrad.squares + static_cast<int64_t>(number) * (has_wide() ? 2 : 1);
  }

  __device__ void keep(float* to, const float (&gradient)[kColumns], float score) const {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int d = column(c);
      if (d < table_.dim) to[d] = gradient[c];
    }
    if (has_wide() && lane_ == 0) to[table_.dim] = score;
  }

  __device__ void step(uint32_t number, float* row, float (&gradient)[kColumns], float score,
                       const RowState<kColumns>& state) const {
    const Adagrad& adagrad = sink_.adagrad;
    float total = 0;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (column(c) >= table_.dim) gradient[c] = 0;
      gradient[c] += adagrad.l2 * state.values[c];
      total += gradient[c] * gradient[c];
    }
#pragma unroll
    for (int apart = kLanes / 2; apart > 0; apart /= 2) total += __shfl_xor_sync(lanes_mask<kLanes>(), total, apart);
    if (total > 0) {
      const float sum = state.square + total / static_cast<float>(table_.dim);
      const float by = rate_ / (sqrtf(sum) + adagrad.epsilon);
      if (lane_ == 0) *squares_of(number) = sum;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int d = column(c);
        if (d < table_.dim) row[d] = state.values[c] - by * gradient[c];
      }
    }
    if (!has_wide() || lane_ != 0) return;
    const float wide = score + adagrad.l2 * state.wide;
    if (wide == 0) return;
    const float sum = state.wide_square + wide * wide;
    squares_of(number)[1] = sum;
    row[table_.dim] = state.wide - rate_ / (sqrtf(sum) + adagrad.epsilon) * wide;
  }

  const Table& table_;
  const Sink& sink_;
  const bool interaction_;
  const int lane_;
  float rate_ = 0;
};

}  // namespace afm::cuda
