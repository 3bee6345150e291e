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
    return 0xffffffffU;
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
};

// Values [d, d + kColumns) of a row of `dim`; `vectors`: rows begin and end at a multiple of 4 values, aligned so.
template <int kColumns, typename T>
__device__ void load_values(const T* row, int d, int dim, bool vectors, float (&to)[kColumns]) {
  if (vectors) {
#pragma unroll
    for (int c = 0; c < kColumns; c += 4) {
      if (d + c >= dim) continue;
      const auto four = *reinterpret_cast<const Vector<T, 4>*>(row + d + c);
#pragma unroll
      for (int i = 0; i < 4; ++i) to[c + i] = to_float(four.values[i]);
    }
  } else {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (d + c < dim) to[c] = to_float(row[d + c]);
    }
  }
}

// What a step needs of a row as it is.
template <int kColumns>
struct RowState {
  float values[kColumns];
  float wide, square, wide_square;
};

// A group of lanes at its row.
template <int lanes, int columns>
class RowWriter {
 public:
  static constexpr int kLanes = lanes, kColumns = columns;
  using Sink = cuda::Sink;
  using State = RowState<kColumns>;

  __device__ RowWriter(const Table& table, const Sink& sink, bool interaction)
      : table_(table), sink_(sink), interaction_(interaction), lane_(threadIdx.x % kLanes) {}

  __device__ void read(uint32_t number, RowState<kColumns>& state) const {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) state.values[c] = 0;
    const bool steps = sink_.adagrad.squares != nullptr;
    const float* row = table_.rows + static_cast<int64_t>(number) * table_.stride;
    if (interaction_ || steps) load_values<kColumns>(row, lane_ * kColumns, table_.dim, false, state.values);
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
  __device__ bool has_wide() const { return table_.stride > table_.dim; }
  __device__ float* squares_of(uint32_t number) const {
    return sink_.adagrad.squares + static_cast<int64_t>(number) * (has_wide() ? 2 : 1);
  }

  __device__ void keep(float* to, const float (&gradient)[kColumns], float score) const {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int d = lane_ * kColumns + c;
      if (d < table_.dim) to[d] = gradient[c];
    }
    if (has_wide() && lane_ == 0) to[table_.dim] = score;
  }

  __device__ void step(uint32_t number, float* row, float (&gradient)[kColumns], float score,
                       const RowState<kColumns>& state) const {
    const Adagrad& adagrad = sink_.adagrad;
    const float rate = *adagrad.rate * adagrad.scale;
    float total = 0;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (lane_ * kColumns + c >= table_.dim) gradient[c] = 0;
      gradient[c] += adagrad.l2 * state.values[c];
      total += gradient[c] * gradient[c];
    }
#pragma unroll
    for (int apart = kLanes / 2; apart > 0; apart /= 2) total += __shfl_xor_sync(lanes_mask<kLanes>(), total, apart);
    if (total > 0) {
      const float sum = state.square + total / static_cast<float>(table_.dim);
      const float by = rate / (sqrtf(sum) + adagrad.epsilon);
      if (lane_ == 0) *squares_of(number) = sum;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int d = lane_ * kColumns + c;
        if (d < table_.dim) row[d] = state.values[c] - by * gradient[c];
      }
    }
    if (!has_wide() || lane_ != 0) return;
    const float wide = score + adagrad.l2 * state.wide;
    if (wide == 0) return;
    const float sum = state.wide_square + wide * wide;
    squares_of(number)[1] = sum;
    row[table_.dim] = state.wide - rate / (sqrtf(sum) + adagrad.epsilon) * wide;
  }

  const Table& table_;
  const Sink& sink_;
  const bool interaction_;
  const int lane_;
};

}  // namespace afm::cuda
