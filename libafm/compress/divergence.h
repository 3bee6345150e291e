#pragma once

// Private: how far two models' answers are apart.

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "libafm/data/dataset.h"
#include "libafm/nn/model.h"

namespace afm {

// KL(p || q) of the Bernoulli distributions that two rows of logits give, in nats: [B] float64. Every term is a product
// of a probability and a difference of its logarithm: nothing saturates, nothing cancels.
at::Tensor divergence(const at::Tensor& before, const at::Tensor& after);

// Of the rows that logits_of() takes, in evaluation mode: CPU, float64.
at::Tensor all_logits(Model& model, const Dataset& dataset, int64_t max_rows);

}  // namespace afm
