#pragma once

// Private: what the hand-written kernels for float32 on the CPU have in common.

#include <ATen/core/Tensor.h>

#include "libafm/nn/vectorized.h"

namespace afm::nn {

inline bool is_cpu_float(const at::Tensor& tensor) {
  return tensor.is_cpu() && tensor.scalar_type() == at::kFloat && tensor.layout() == at::kStrided;
}

// The kernels know no second derivative: rather an error than a wrong result.
void refuse_second_derivative(const char* name);

// A contiguous tensor to write the gradient of the input to. It is the incoming gradient itself where nobody else holds
// it: fresh pages for every activation cost a step more than the arithmetic on them.
at::Tensor reuse_gradient(const at::Tensor& gradient);

}  // namespace afm::nn
