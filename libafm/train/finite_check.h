#pragma once

// Private: what stops training at the batch in which it leaves the numbers.

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

namespace afm {

// Whether the sum of squares of a gradient is finite: what an optimizer divides by overflows before the values do.
// CPU; reads the values once.
bool has_finite_norm(const at::Tensor& gradient);
bool has_finite_norm(const std::vector<float>& gradient);

// What is wrong with logits [B] of the rows `index` [B] of the training set, ": 2 of 100 logits are not finite, row 17
// of the training set the first"; empty when all are finite.
std::string lost_rows(const at::Tensor& logits, const at::Tensor& index);

// The name of a parameter or buffer that holds a NaN or an infinity; empty when none does. Any device.
std::string lost_tensor(const torch::nn::Module& model);

}  // namespace afm
