#include <optional>

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/csrc/autograd/custom_function.h>

#include "libafm/cuda/activation.h"
#include "libafm/nn/cpu_kernels.h"
#include "libafm/nn/cuda_launch.h"
#include "libafm/nn/linear_relu.h"
#include "libafm/nn/mixed_product.h"

namespace afm::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct LinearRelu : torch::autograd::Function<LinearRelu> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const at::Tensor& bias) {
    const c10::cuda::CUDAGuard guard(x.device());
    const auto [rounded, rounded_bias] = fitting(weight, bias, x.scalar_type());
    const at::Tensor y = at::_addmm_activation(rounded_bias, x, rounded.t());
    context->save_for_backward({x, rounded, y});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list& incoming) {
    refuse_second_derivative("Linear with ReLU");
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &y = saved[2];
    const c10::cuda::CUDAGuard guard(y.device());
    const auto [before, bias] = through_relu(incoming[0], y);
    const at::Tensor to_x = context->needs_input_grad(0) ? at::mm(before, weight) : at::Tensor();
    const at::Tensor to_weight = context->needs_input_grad(1) ? float_product(before, x) : at::Tensor();
    return {to_x, to_weight, bias};
  }
};

struct LinearRow : torch::autograd::Function<LinearRow> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& given_bias) {
    const c10::cuda::CUDAGuard guard(x.device());
    const at::Tensor bias = given_bias.value_or(at::Tensor());
    const at::Tensor y = at::empty({x.size(0), 1}, weight.options());
    cuda::Row row = row_of(x, weight);
    row.bias = floats_of(bias);
    check_launch(cuda::row_forward(row, floats_of(y), stream_of(x)));
    context->save_for_backward({x, weight, bias});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list& incoming) {
    refuse_second_derivative("Linear of one output");
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &bias = saved[2];
    const c10::cuda::CUDAGuard guard(x.device());
    const int64_t n = x.size(1);
    const at::Tensor gradient = incoming[0].contiguous(), to_x = at::empty_like(x);
    const at::Tensor sums = at::empty({n + 1}, weight.options());
    const at::Tensor scratch = bytes_like(cuda::parts_bytes(x.size(0), cuda::sums_of_row(n, false)), x);
    check_launch(cuda::row_backward(row_of(x, weight),
                                    {.incoming = gradient.const_data_ptr<float>(),
                                     .to_x = to_x.mutable_data_ptr(),
                                     .sums = floats_of(sums),
                                     .gated = false,
                                     .scratch = scratch.mutable_data_ptr()},
                                    stream_of(x)));
    return {to_x, sums.narrow(0, 0, n).view({1, n}), bias.defined() ? sums.narrow(0, n, 1) : at::Tensor()};
  }
};

}  // namespace

std::optional<at::Tensor> fused_linear_relu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (!is_device_matrix(x) || weight.scalar_type() != at::kFloat || bias.scalar_type() != at::kFloat) {
    return std::nullopt;
  }
  return LinearRelu::apply(x, weight, bias);
}

std::optional<at::Tensor> fused_linear_row(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (!is_device_matrix(x) || !is_array_beside(x, weight) || (bias.defined() && !is_array_beside(x, bias))) {
    return std::nullopt;
  }
  return LinearRow::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
}

}  // namespace afm::nn
