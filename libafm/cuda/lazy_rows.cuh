#pragma once

// Private: what one row of a table owes to Adam, and how it gets it.

#include "libafm/cuda/lazy_adam.h"
#include "libafm/cuda/row_writer.cuh"
#include "libafm/cuda/shapes.cuh"

namespace afm::cuda {

// What a row has missed: some steps one by one, and the rest at once, see Note [Missed steps].
struct OwedSteps {
  const AdamStep* steps;
  int count;
  bool has_rest;
  MissedSteps rest;
  AdamDecay decay;
};

__device__ inline bool owes_nothing(const LazyAdam& adam, int behind, int steps) {
  return behind == steps || (behind == 0 && adam.l2 == 0);
}

// REQUIRES: not owes_nothing().
__device__ inline OwedSteps owed_steps(const LazyAdam& adam, int behind) {
  const AdamHistory& history = adam.history;
  const int steps = history.count->steps, first = history.count->first;
  const int exact = adam.l2 != 0 ? steps : min(max(static_cast<int>(kExactSteps), behind), steps);
  OwedSteps owed{history.each + (behind - first), exact - behind, exact < steps, {}, {}};
  if (!owed.has_rest) return owed;
  owed.rest = history.missed[exact - first];
  owed.decay = history.decays[steps - exact];
  return owed;
}

__device__ inline void catch_up(float& value, float& mean, float& square, const OwedSteps& owed, float l2) {
  for (int t = 0; t < owed.count; ++t) take_step(value, mean, square, 0.0F, l2, owed.steps[t]);
  if (owed.has_rest) skip_steps(value, mean, square, owed.rest, owed.decay);
}

// A value of the table as it would be.
__device__ inline float owed_value(const Table& table, const LazyAdam& adam, int64_t at, const OwedSteps& owed) {
  float value = table.rows[at], mean = adam.means[at], square = adam.squares[at];
  catch_up(value, mean, square, owed, adam.l2);
  return value;
}

template <int kColumns>
struct AdamRowState {
  float values[kColumns], means[kColumns], squares[kColumns];
  float wide, wide_mean, wide_square;
  int behind;
};

// RowWriter's counterpart for Adam. The row is brought up to date where it is written, so that reading waits for
// nothing.
template <int lanes, int columns>
class AdamRowWriter {
 public:
  static constexpr int kLanes = lanes, kColumns = columns;
  static constexpr int kRowsAtOnce = 1;  // more would not fit into registers
  using Sink = LazyAdam;
  using State = AdamRowState<kColumns>;

  __device__ AdamRowWriter(const Table& table, const LazyAdam& adam, bool interaction)
      : table_(table), adam_(adam), interaction_(interaction), lane_(threadIdx.x % kLanes) {}

  __device__ void read(uint32_t number, State& state) const {
    const int64_t start = static_cast<int64_t>(number) * table_.stride;
    read_part(table_.rows + start, state.values);
    read_part(adam_.means + start, state.means);
    read_part(adam_.squares + start, state.squares);
    state.behind = adam_.behind[number];
    if (!has_wide() || lane_ != 0) return;
    state.wide = table_.rows[start + table_.dim];
    state.wide_mean = adam_.means[start + table_.dim];
    state.wide_square = adam_.squares[start + table_.dim];
  }

  __device__ void write(uint32_t number, const Sums<kColumns>& sums, State state) const {
    const int steps = adam_.history.count->steps;
    if (!owes_nothing(adam_, state.behind, steps)) catch_up_row(state);
    const AdamStep now = *adam_.history.now;
    const int64_t start = static_cast<int64_t>(number) * table_.stride;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int d = column(c);
      if (d >= table_.dim) continue;
      const float gradient = sums.values[c] - (interaction_ ? state.values[c] * sums.score : 0.0F);
      take_step(state.values[c], state.means[c], state.squares[c], gradient, adam_.l2, now);
      store_value(start + d, state.values[c], state.means[c], state.squares[c]);
    }
    __syncwarp(lanes_mask<kLanes>());  // all lanes of the row have read how far it is behind
    if (lane_ != 0) return;
    adam_.behind[number] = steps + 1;
    if (!has_wide()) return;
    take_step(state.wide, state.wide_mean, state.wide_square, sums.score, adam_.l2, now);
    store_value(start + table_.dim, state.wide, state.wide_mean, state.wide_square);
  }

 private:
  __device__ int column(int c) const { return lane_ + c * kLanes; }
  __device__ bool has_wide() const { return table_.stride > table_.dim; }

  __device__ void read_part(const float* row, float (&to)[kColumns]) const {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) to[c] = column(c) < table_.dim ? row[column(c)] : 0.0F;
  }

  __device__ void catch_up_row(State& state) const {
    const OwedSteps owed = owed_steps(adam_, state.behind);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) catch_up(state.values[c], state.means[c], state.squares[c], owed, adam_.l2);
    if (has_wide() && lane_ == 0) catch_up(state.wide, state.wide_mean, state.wide_square, owed, adam_.l2);
  }

  __device__ void store_value(int64_t at, float value, float mean, float square) const {
    table_.rows[at] = value;
    adam_.means[at] = mean;
    adam_.squares[at] = square;
  }

  const Table& table_;
  const LazyAdam& adam_;
  const bool interaction_;
  const int lane_;
};

}  // namespace afm::cuda
