#include "libafm/nn/mixed_product.h"

#include <ATen/ATen.h>

#include "libafm/cuda/activation.h"
#include "libafm/nn/cuda_launch.h"

namespace afm::nn {

bool is_device_matrix(const at::Tensor& x) {
  const bool fits = x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
  return x.is_cuda() && fits && x.dim() == 2 && x.is_contiguous() && x.size(0) > 0;
}

std::pair<at::Tensor, at::Tensor> fitting(const at::Tensor& weight, const at::Tensor& bias, at::ScalarType type) {
  if (type == at::kFloat) return {weight, bias};
  if (!weight.is_contiguous() || !bias.is_contiguous()) return {weight.to(type), bias.to(type)};
  const at::Tensor to_weight = at::empty(weight.sizes(), weight.options().dtype(type));
  const at::Tensor to_bias = at::empty(bias.sizes(), bias.options().dtype(type));
  check_launch(cuda::round_pair({.first = weight.const_data_ptr<float>(),
                                 .second = bias.const_data_ptr<float>(),
                                 .to_first = to_weight.mutable_data_ptr(),
                                 .to_second = to_bias.mutable_data_ptr(),
                                 .first_count = weight.numel(),
                                 .second_count = bias.numel()},
                                stream_of(weight)));
  return {to_weight, to_bias};
}

at::Tensor float_product(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == at::kFloat ? at::mm(a.t(), b) : at::mm(a.t(), b, at::kFloat);
}

}  // namespace afm::nn
