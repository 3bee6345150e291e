#pragma once

// Private: products of float32 parameters with what a GPU holds in float32 or bfloat16. Only in a build with AFM_CUDA.

#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/cuda/activation.h"

namespace afm::nn {

// float32 or bfloat16, [B, n], contiguous, with rows, on a GPU.
bool is_device_matrix(const at::Tensor& x);
// float32 and contiguous, on the device of x: the kernels may read it.
bool is_array_beside(const at::Tensor& x, const at::Tensor& values);

// The task of a layer of one output on x, without what is added.
cuda::Row row_of(const at::Tensor& x, const at::Tensor& weight);

// What passes a gate backwards, in the gate's type, and its sums over rows in float32.
struct Gated {
  at::Tensor gradient, sums;  // [B, m], [m]
};
Gated through_relu(const at::Tensor& incoming, const at::Tensor& y);         // y = relu(z) [B, m]: to z
Gated through_factor(const at::Tensor& incoming, const at::Tensor& factor);  // of factor * z [B, m]: to z

// Parameters of float32 in bfloat16, all in one launch.
std::vector<at::Tensor> rounded(at::TensorList parameters);
// weight and bias in the type of what they meet.
std::pair<at::Tensor, at::Tensor> fitting(const at::Tensor& weight, const at::Tensor& bias, at::ScalarType type);

// The product a' b in float32, whatever the type of a and b.
at::Tensor float_product(const at::Tensor& a, const at::Tensor& b);

}  // namespace afm::nn
