#pragma once

// Private: the gradients of the rows that a batch reads, added up by atomics instead of in sorted order (table.h). All
// pointers are device memory.
//
// Note [Rows by atomics]
// Nothing is sorted. Each row that a batch reads takes a slot, in whatever order threads come to it; places add their
// gradients into the slots by atomics; then each slot's row is written, and the slot is free again. Ids are by
// frequency: the first rows of each field, which are all rows of a small one, are added up in shared memory before, by
// lanes that own the field within their block, so that the rows that most places read meet few atomics.
// Sums come out in another order each time: equal input gives equal values up to rounding, not equal bits.

#include <cstdint>

#include "libafm/cuda/table.h"

namespace afm::cuda {

inline constexpr uint32_t kNoSlot = 0xffffffffU;

// For at most `capacity` rows at once: min(B F, N) of the largest batch. Between steps no row has a slot, and all sums
// are zero.
struct RowSlots {
  uint32_t* slot_of;  // [N]; kNoSlot: none
  uint32_t* row_of;   // [capacity]
  uint32_t* count;    // [1] slots taken
  float* sums;        // [capacity, slot_width(D)] of the values' gradients
  float* scores;      // [capacity] of the score's
};
int slot_width(int dim);  // in floats

// Adds up what `task` holds of each row; task.rows says which places read it. Whoever writes the rows must do so next.
Status add_to_slots(const Table& table, const RowGradients& task, const RowSlots& slots, Stream stream);

// step_adagrad() of the rows that have a slot. `interaction`: task.sums was there.
Status step_adagrad(const Table& table, const RowSlots& slots, bool interaction, const Adagrad& adagrad, Stream stream);

}  // namespace afm::cuda
