#pragma once

// Private: cross networks in few passes on a GPU. nullopt where that does not exist: without AFM_CUDA, on other
// devices, for other types, and for more than cuda::kMostCrossLayers layers.

#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

namespace afm::nn {

// x0 [B, n] is that of the argument: who reads it from here has his gradient added to the network's in one pass.
struct FusedCross {
  at::Tensor x0, output;
};

// The vector form with a row [1, n] behind it: output [B] of float32. x0 of float32 or bfloat16, parameters [L, n] of
// float32.
std::optional<FusedCross> fused_cross_row(const at::Tensor& x0, const at::Tensor& weight, const at::Tensor& bias,
                                          const at::Tensor& row);

// The matrix form: output [B, n] like x0. parameters: weight [n, n] and bias [n] of each layer in turn, float32.
std::optional<FusedCross> fused_cross_matrices(const at::Tensor& x0, const std::vector<at::Tensor>& parameters);

}  // namespace afm::nn
