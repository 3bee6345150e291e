#pragma once

// Private: what follows the product of a hidden layer: batch norm (when `norm` is given), ReLU, dropout.

#include <ATen/core/Tensor.h>
#include <torch/nn/modules/batchnorm.h>

namespace afm::nn {

// x [B, H] is consumed: without batch norm the result is written over it.
at::Tensor hidden_activation(at::Tensor x, torch::nn::BatchNorm1dImpl* norm, double dropout, bool training);

}  // namespace afm::nn
