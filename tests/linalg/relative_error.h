#pragma once

#include <torch/torch.h>

namespace afm::testing {

// The Frobenius norm of the difference, relative to the second argument's.
inline double relative_error(const at::Tensor& got, const at::Tensor& wanted) {
  return ((got.to(at::kDouble) - wanted).norm() / (wanted.norm() + 1e-300)).item<double>();
}

}  // namespace afm::testing
