#pragma once

// Private: the state of Adam on a table whose rows may be behind, as checkpoints hold it: as Adam's, and
// "<name>.rows" int32 [rows], the last step that each has done, "<name>.rates" float64, the learning rates of the steps
// that some row may have before it. A state of Adam is one where no row is behind.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/core/tensors.h"

namespace afm {

struct LazyAdamState {
  at::Tensor mean, square, behind;  // share memory with the optimizer
  int64_t steps = 0;
  std::vector<double> rates = {};
};

TensorMap lazy_adam_state(const std::string& name, const LazyAdamState& state);
// Fills the tensors of `state`, and steps and rates. fresh_rows: those that have done no step owe none (no L2). Throws
// FormatError, naming `where`.
void load_lazy_adam_state(const TensorMap& from, const std::string& name, std::string_view where, bool fresh_rows,
                          LazyAdamState& state);

}  // namespace afm
