#pragma once

// Private: the optimizer of a training run.

#include <cstdint>
#include <memory>

#include <torch/nn/module.h>

#include "libafm/train/optimizer.h"
#include "libafm/train/trainer.h"

namespace afm {

// Below so many elements (4 MB, a cache's size) a table is trained as a whole.
inline constexpr int64_t kLazyElements = int64_t{1} << 20;

// TrainOptions::optimizer of the tables, Adam for the rest. `model` must outlive it, and stay on its device.
std::unique_ptr<Optimizer> make_optimizer(torch::nn::Module& model, const TrainOptions& options,
                                          int64_t lazy_elements = kLazyElements);

}  // namespace afm
