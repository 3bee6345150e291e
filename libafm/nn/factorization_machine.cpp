#include <ATen/ATen.h>

#include "libafm/nn/interaction.h"

namespace afm::nn {

at::Tensor factorization_machine(const at::Tensor& values) {
  TORCH_CHECK(values.dim() == 3, "factorization_machine: expected values [B, F, D], got ", values.sizes());
  return values.sum(1).square().sum(1).sub(values.square().sum({1, 2})).mul(0.5);
}

}  // namespace afm::nn
