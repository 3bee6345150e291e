#pragma once

// Private: parts of a training step as one launch on a GPU. Each says no where that does not exist: without AFM_CUDA,
// on other devices, and for other types.

#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/data/batch.h"

namespace afm {

// logloss_of(), its gradient computed on the way; float32.
std::optional<at::Tensor> fused_logloss(const at::Tensor& logits, const at::Tensor& labels);

// loss_sum += loss * rows, and finite_batches += 1 while loss_sum is finite; numbers without dimension: float32,
// float64 and int64.
bool fused_loss_sum(const at::Tensor& loss, int64_t rows, const at::Tensor& loss_sum, const at::Tensor& finite_batches);

// A step of Adam on float32 tensors.
struct AdamSlot {
  at::Tensor parameter, gradient, mean, square;
  at::Tensor step;  // the number of this step, from 1
  double l2;
};
// `rate`: [1] float32 on the device; undefined: `learning_rate`.
bool fused_adam(const std::vector<AdamSlot>& slots, const at::Tensor& rate, double learning_rate);

// Rows `index` [B] int64 of a data set that lives on the device as a whole; trusts the index.
std::optional<Batch> fused_gather(const Batch& all, const at::Tensor& index);

}  // namespace afm
