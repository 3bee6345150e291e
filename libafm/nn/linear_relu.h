#pragma once

// Private: linear layers in fewer passes on a GPU.

#include <optional>

#include <ATen/core/Tensor.h>

namespace afm::nn {

// relu(x weight' + bias) for x [B, n] of float32 or bfloat16, weight [m, n] and bias [m] of float32 (their gradients
// too). nullopt where that does not exist: without AFM_CUDA, on other devices, and for other types.
std::optional<at::Tensor> fused_linear_relu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

// x weight' + bias, [B, 1] of float32, under the same conditions, for a weight [1, n]; bias [1] or undefined.
std::optional<at::Tensor> fused_linear_row(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);
// The same [B], by ATen where it does not exist.
at::Tensor linear_row(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace afm::nn
