#include "libafm/nn/cpu_kernels.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace afm::nn {

void refuse_second_derivative(const char* name) {
  TORCH_CHECK(!at::GradMode::is_enabled(), name,
              ": the float32 CPU kernels have no second derivative, use float64 for create_graph");
}

at::Tensor reuse_gradient(const at::Tensor& gradient) {
  const bool alone = gradient.use_count() == 1 && gradient.storage().use_count() == 1 && gradient.is_contiguous();
  return alone ? gradient : at::empty_like(gradient, at::MemoryFormat::Contiguous);
}

}  // namespace afm::nn
