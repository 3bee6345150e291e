#pragma once

// Private: the rules on TrainOptions.

#include <string_view>

#include <c10/core/Device.h>

#include "libafm/train/trainer.h"

namespace afm {

// Throws std::invalid_argument for the first option that breaks its rule.
void check_options(const TrainOptions& options);

// The same, and DataError for datasets that do not fit the model or its teachers, or are too small to learn from.
void check_run(const Model& model, const Dataset& train_set, const Dataset& valid_set, const TrainOptions& options);

// The device of that name, with its number. Throws std::invalid_argument for what is no device of this machine.
at::Device device_of(std::string_view name);

}  // namespace afm
