#include "libafm/nn/fused_cross.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/csrc/autograd/custom_function.h>

#include "libafm/cuda/activation.h"
#include "libafm/cuda/cross.h"
#include "libafm/nn/cpu_kernels.h"
#include "libafm/nn/cuda_launch.h"
#include "libafm/nn/mixed_product.h"

namespace afm::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const void* data_of(const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }

// A gradient as the kernels take it; may be undefined.
at::Tensor gradient_like(const at::Tensor& gradient, const at::Tensor& x) {
  return gradient.defined() ? gradient.to(x.scalar_type()).contiguous() : gradient;
}

cuda::CrossRow task_of(const at::Tensor& x0, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& row) {
  return {.x = x0.const_data_ptr(),
          .weight = weight.const_data_ptr<float>(),
          .bias = bias.const_data_ptr<float>(),
          .head = row.const_data_ptr<float>(),
          .rows = x0.size(0),
          .columns = x0.size(1),
          .layers = static_cast<int>(weight.size(0)),
          .element = element_of(x0.scalar_type())};
}

struct CrossRowFunction : torch::autograd::Function<CrossRowFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x0, const at::Tensor& weight,
                               const at::Tensor& bias, const at::Tensor& row) {
    const c10::cuda::CUDAGuard guard(x0.device());
    const int64_t products = weight.size(0) + 1;
    const at::Tensor score = at::empty({x0.size(0)}, weight.options());
    const at::Tensor rows = at::empty({x0.size(0), products}, weight.options());
    const at::Tensor constants = at::empty({products}, weight.options());
    check_launch(cuda::cross_row_forward(task_of(x0, weight, bias, row), {floats_of(rows), floats_of(constants)},
                                         floats_of(score), stream_of(x0)));
    context->set_materialize_grads(false);
    context->save_for_backward({x0, weight, bias, row, rows, constants});
    return {x0, score};
  }

  static variable_list backward(AutogradContext* context, variable_list& incoming) {
    refuse_second_derivative("CrossNet");
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x0 = saved[0], &weight = saved[1], &bias = saved[2], &row = saved[3];
    if (!incoming[1].defined()) return {incoming[0], at::Tensor(), at::Tensor(), at::Tensor()};
    const c10::cuda::CUDAGuard guard(x0.device());
    const at::Tensor beside = gradient_like(incoming[0], x0), score = incoming[1].contiguous();
    const at::Tensor to_x0 = at::empty_like(x0), to_weight = at::empty_like(weight);
    const at::Tensor to_bias = at::empty_like(bias), to_row = at::empty_like(row);
    const cuda::CrossRow task = task_of(x0, weight, bias, row);
    const at::Tensor scratch = bytes_like(cuda::cross_row_scratch(task), x0);
    check_launch(cuda::cross_row_backward(task, {floats_of(saved[4]), floats_of(saved[5])},
                                          {.score = score.const_data_ptr<float>(),
                                           .x = data_of(beside),
                                           .to_x = to_x0.mutable_data_ptr(),
                                           .to_weight = floats_of(to_weight),
                                           .to_bias = floats_of(to_bias),
                                           .to_head = floats_of(to_row),
                                           .scratch = scratch.mutable_data_ptr()},
                                          stream_of(x0)));
    return {to_x0, to_weight, to_bias, to_row};
  }
};

// What each layer of the matrix form leaves for the backward pass, in turn: its input, its product, its weight as it
// was multiplied.
constexpr int64_t kKeptPerLayer = 3;

struct CrossMatrixFunction : torch::autograd::Function<CrossMatrixFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x0, at::TensorList parameters) {
    const c10::cuda::CUDAGuard guard(x0.device());
    variable_list kept;
    at::Tensor x = x0;
    for (std::size_t l = 0; l < parameters.size() / 2; ++l) {
      const auto [weight, bias] = fitting(parameters[2 * l], parameters[2 * l + 1], x0.scalar_type());
      const at::Tensor z = at::addmm(bias, x, weight.t()), next = at::empty_like(x);
      check_launch(cuda::cross_step({.x0 = x0.const_data_ptr(),
                                     .x = x.const_data_ptr(),
                                     .z = z.const_data_ptr(),
                                     .next = next.mutable_data_ptr(),
                                     .count = x.numel(),
                                     .element = element_of(x0.scalar_type())},
                                    stream_of(x0)));
      kept.insert(kept.end(), {x, z, weight});
      x = next;
    }
    context->set_materialize_grads(false);
    context->save_for_backward(std::move(kept));
    return {x0, x};
  }

  static variable_list backward(AutogradContext* context, variable_list& incoming) {
    refuse_second_derivative("CrossNet");
    const variable_list kept = context->get_saved_variables();
    const at::Tensor& x0 = kept[0];
    const auto layers = static_cast<int64_t>(kept.size()) / kKeptPerLayer;
    variable_list gradients(static_cast<std::size_t>(1 + 2 * layers));
    gradients[0] = incoming[0];
    if (!incoming[1].defined()) return gradients;
    const c10::cuda::CUDAGuard guard(x0.device());
    const at::Tensor beside = gradient_like(incoming[0], x0);
    cuda::CrossInputGradient input{.incoming = {},
                                   .z = {},
                                   .first = nullptr,
                                   .beside = data_of(beside),
                                   .to_x0 = nullptr,
                                   .layers = static_cast<int>(layers),
                                   .count = x0.numel(),
                                   .element = element_of(x0.scalar_type())};
    variable_list of_outputs;  // live until the last kernel reads them
    at::Tensor gradient = gradient_like(incoming[1], x0);
    for (int64_t l = layers - 1; l >= 0; --l) {
      const auto at = static_cast<std::size_t>(kKeptPerLayer * l);
      const auto [to_z, to_bias] = through_factor(gradient, x0);  // of x_0 z, and of the bias in z
      gradients[static_cast<std::size_t>(1 + 2 * l)] = float_product(to_z, kept[at]);
      gradients[static_cast<std::size_t>(2 + 2 * l)] = to_bias;
      input.incoming[l] = gradient.const_data_ptr();
      input.z[l] = kept[at + 1].const_data_ptr();
      of_outputs.push_back(gradient);
      gradient = at::addmm(gradient, to_z, kept[at + 2]);
    }
    gradients[0] = at::empty_like(x0);
    input.first = gradient.const_data_ptr();
    input.to_x0 = gradients[0].mutable_data_ptr();
    check_launch(cuda::cross_input_gradient(input, stream_of(x0)));
    return gradients;
  }
};

bool are_floats(at::TensorList parameters) {
  return std::ranges::all_of(parameters, [](const at::Tensor& tensor) {
    return tensor.scalar_type() == at::kFloat && tensor.is_contiguous();
  });
}

}  // namespace

std::optional<FusedCross> fused_cross_row(const at::Tensor& x0, const at::Tensor& weight, const at::Tensor& bias,
                                          const at::Tensor& row) {
  if (!is_device_matrix(x0) || weight.size(0) > cuda::kMostCrossLayers || !are_floats({weight, bias, row})) {
    return std::nullopt;
  }
  const variable_list found = CrossRowFunction::apply(x0, weight, bias, row);
  return FusedCross{found[0], found[1]};
}

std::optional<FusedCross> fused_cross_matrices(const at::Tensor& x0, const std::vector<at::Tensor>& parameters) {
  if (!is_device_matrix(x0) || parameters.size() > 2 * cuda::kMostCrossLayers || !are_floats(parameters)) {
    return std::nullopt;
  }
  const variable_list found = CrossMatrixFunction::apply(x0, at::TensorList(parameters));
  return FusedCross{found[0], found[1]};
}

}  // namespace afm::nn
