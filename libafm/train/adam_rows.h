#pragma once

// Private: Adam on rows of a float32 table. No LibTorch.

#include <cstdint>

#include "libafm/nn/touched_row.h"
#include "libafm/train/step_history.h"

namespace afm {

struct AdamTable {
  float *parameters, *means, *squares;  // flat
  int32_t* behind;                      // [rows] the last step that each row has done
  float l2;
};

// A row that no gradient has reached yet (`behind` is 0) owes nothing, unless there is L2.
constexpr bool owes_nothing(const AdamTable& table, int64_t row, int64_t steps) {
  return table.behind[row] == steps || (table.behind[row] == 0 && table.l2 == 0);
}

// Makes up for the steps that the rows have missed, up to history.steps().
void catch_up(const AdamTable& table, const StepHistory& history, const nn::TouchedRow* rows, int64_t count);

// Step number `steps` with a gradient, on rows that have done all before it.
void step_rows(const AdamTable& table, AdamStep step, int64_t steps, const nn::TouchedRow* rows, int64_t count,
               const float* gradients);

}  // namespace afm
