#include "libafm/nn/mixed_product.h"

#include <ATen/ATen.h>

#include "libafm/nn/cuda_launch.h"

namespace afm::nn {
namespace {

Gated through(const at::Tensor& incoming, const at::Tensor& gate,
              cuda::Status (*pass)(const cuda::GateGradient&, cuda::Stream)) {
  const at::Tensor gradient = incoming.to(gate.scalar_type()).contiguous();
  const at::Tensor scratch = bytes_like(cuda::parts_bytes(gate.size(0), gate.size(1)), gate);
  Gated gated{at::empty_like(gate), at::empty({gate.size(1)}, gate.options().dtype(at::kFloat))};
  check_launch(pass({.incoming = gradient.const_data_ptr(),
                     .gate = gate.const_data_ptr(),
                     .outgoing = gated.gradient.mutable_data_ptr(),
                     .bias = floats_of(gated.sums),
                     .rows = gate.size(0),
                     .columns = gate.size(1),
                     .element = element_of(gate.scalar_type()),
                     .scratch = scratch.mutable_data_ptr()},
                    stream_of(gate)));
  return gated;
}

}  // namespace

Gated through_relu(const at::Tensor& incoming, const at::Tensor& y) {
  return through(incoming, y, cuda::relu_gradient);
}

Gated through_factor(const at::Tensor& incoming, const at::Tensor& factor) {
  return through(incoming, factor, cuda::factor_gradient);
}

bool is_device_matrix(const at::Tensor& x) {
  const bool fits = x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
  return x.is_cuda() && fits && x.dim() == 2 && x.is_contiguous() && x.size(0) > 0;
}

bool is_array_beside(const at::Tensor& x, const at::Tensor& values) {
  return values.defined() && values.device() == x.device() && values.scalar_type() == at::kFloat &&
         values.is_contiguous();
}

cuda::Row row_of(const at::Tensor& x, const at::Tensor& weight) {
  return {.x = x.const_data_ptr(),
          .weight = weight.const_data_ptr<float>(),
          .bias = nullptr,
          .beside = nullptr,
          .beside_bias = nullptr,
          .rows = x.size(0),
          .columns = x.size(1),
          .element = element_of(x.scalar_type())};
}

std::vector<at::Tensor> rounded(at::TensorList parameters) {
  std::vector<at::Tensor> results, contiguous;  // which live until the launch
  std::vector<cuda::Rounding> arrays;
  for (const at::Tensor& parameter : parameters) {
    contiguous.push_back(parameter.contiguous());
    results.push_back(at::empty(parameter.sizes(), parameter.options().dtype(at::kBFloat16)));
    arrays.push_back({contiguous.back().const_data_ptr<float>(), results.back().mutable_data_ptr(), parameter.numel()});
  }
  if (arrays.empty()) return results;
  check_launch(cuda::round_arrays(arrays.data(), static_cast<int>(arrays.size()), stream_of(results[0])));
  return results;
}

std::pair<at::Tensor, at::Tensor> fitting(const at::Tensor& weight, const at::Tensor& bias, at::ScalarType type) {
  if (type == at::kFloat) return {weight, bias};
  const auto both = rounded({weight, bias});
  return {both[0], both[1]};
}

at::Tensor float_product(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == at::kFloat ? at::mm(a.t(), b) : at::mm(a.t(), b, at::kFloat);
}

}  // namespace afm::nn
