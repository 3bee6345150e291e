#pragma once

// Private: Adam with dense semantics on a GPU at the cost of the rows that are read (train/lazy_adam.h). A lookup
// computes with what a row would be, but leaves it; whoever adds up the row's gradient writes all it has missed, and
// the step. All pointers are device memory. A step can be recorded and repeated: what changes from one to the next is
// on the device.

#include <cstddef>
#include <cstdint>

#include "libafm/cuda/row_slots.h"
#include "libafm/cuda/status.h"
#include "libafm/cuda/table.h"
#include "libafm/train/missed_steps.h"

namespace afm::cuda {

// How many steps are done, and up to which of them no row is behind.
struct AdamCount {
  int32_t steps, first;
};

// The steps since `first`, at most `capacity` of them: REQUIRES forget_steps() before there would be more.
struct AdamHistory {
  AdamCount* count;
  float* rates;         // [capacity] learning rates
  AdamStep* now;        // [1] the step under way, between begin_step() and end_step()
  AdamStep* each;       // [capacity] step first + 1 + i
  MissedSums* sums;     // [capacity + 1] of t0 = first + i
  MissedSteps* missed;  // [capacity + 1] of the steps behind it
  AdamDecay* decays;    // [capacity + 1] of n steps
  int32_t capacity;
};
size_t history_bytes(int32_t capacity);
// A history in `memory`, which holds history_bytes(), beside `count` and `rates`, which others read too.
AdamHistory history_in(void* memory, AdamCount* count, float* rates, int32_t capacity);
Status start_history(const AdamHistory& history, Stream stream);  // once: what does not change

struct LazyAdam {
  float *means, *squares;  // like Table::rows
  int32_t* behind;         // [N] the last step that each row has done; 0: none, and no gradient has reached it
  float l2;
  AdamHistory history;
};

// lookup() of the values that rows would have.
Status lookup_lazily(const Table& table, const Lookup& task, const LazyAdam& adam, Stream stream);

// A step: begin_step(), then step_adam_rows() or step_adam_table(), then end_step().
Status begin_step(const AdamHistory& history, const float* rate, Stream stream);
Status step_adam_rows(const Table& table, const RowGradients& task, const LazyAdam& adam, Stream stream);
Status step_adam_rows(const Table& table, const RowSlots& slots, bool interaction, const LazyAdam& adam, Stream stream);
// Every row, by a gradient of the whole table [N, stride]; null: zero.
Status step_adam_table(const Table& table, const float* gradient, const LazyAdam& adam, Stream stream);
// `with_sums`: of missed steps, which L2 has no use for.
Status end_step(const AdamHistory& history, const float* rate, bool with_sums, Stream stream);

// Every row does the steps that it has missed, and the history is forgotten.
Status catch_up_table(const Table& table, const LazyAdam& adam, Stream stream);

}  // namespace afm::cuda
