#pragma once

// Private: hidden layers with ReLU, and a head of one output behind them, as one function on a GPU: what lies between
// two matrix products is done within them.

#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

namespace afm::nn {

struct PlainLayer {
  at::Tensor weight, bias;  // [m, n], [m] of float32
};

// The layer of one output behind the hidden ones, and what its output is added to.
struct PlainHead {
  at::Tensor weight, bias;         // [1, n], [1] of float32; undefined: no head
  at::Tensor beside, beside_bias;  // [B], [1] of float32; both undefined: nothing
};

// relu(x weight' + bias) layer after layer for x [B, n] of bfloat16, then the head where it is defined: [B, m] of
// bfloat16 or [B, 1] of float32. Products add up in float32, what passes between layers is rounded. nullopt where there
// are no such kernels: without AFM_CUDA or CUTLASS, on other devices, for other types, and for widths that are no
// multiples of 8 or narrow.
std::optional<at::Tensor> fused_mlp(const at::Tensor& x, const std::vector<PlainLayer>& hidden, const PlainHead& head);

}  // namespace afm::nn
