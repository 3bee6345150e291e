#pragma once

// Private: logloss_of() on a GPU, its gradient computed on the way.

#include <optional>

#include <ATen/core/Tensor.h>

namespace afm {

// nullopt where that does not exist: without AFM_CUDA, on other devices, and for other types than float32.
std::optional<at::Tensor> fused_logloss(const at::Tensor& logits, const at::Tensor& labels);

}  // namespace afm
