#include "libafm/nn/fused_mlp.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/csrc/autograd/custom_function.h>

#include "libafm/cuda/activation.h"
#include "libafm/cuda/products.h"
#include "libafm/nn/cpu_kernels.h"
#include "libafm/nn/cuda_launch.h"
#include "libafm/nn/mixed_product.h"

namespace afm::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

cuda::LayerShape shape_of(const at::Tensor& x, const at::Tensor& weight) {
  return {.rows = x.size(0), .inputs = weight.size(1), .outputs = weight.size(0)};
}

at::Tensor forward_layer(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor y = at::empty({x.size(0), weight.size(0)}, x.options());
  check_launch(cuda::layer_forward({.shape = shape_of(x, weight),
                                    .x = x.const_data_ptr(),
                                    .weight = weight.const_data_ptr(),
                                    .bias = bias.const_data_ptr<float>(),
                                    .y = y.mutable_data_ptr()},
                                   stream_of(x)));
  return y;
}

// From a layer's gradient to that of what the layer below gives before its ReLU; `bias` becomes that layer's.
at::Tensor gradient_below(const at::Tensor& gradient, const at::Tensor& weight, const at::Tensor& x, at::Tensor& bias) {
  const cuda::LayerShape shape = shape_of(x, weight);
  const at::Tensor to_z = at::empty_like(x);
  bias = at::empty({x.size(1)}, x.options().dtype(at::kFloat));
  const at::Tensor scratch = bytes_like(cuda::layer_gradient_scratch(shape), x);
  check_launch(cuda::layer_gradient({.shape = shape,
                                     .gradient = gradient.const_data_ptr(),
                                     .weight = weight.const_data_ptr(),
                                     .x = x.const_data_ptr(),
                                     .to_z = to_z.mutable_data_ptr(),
                                     .sums = floats_of(bias),
                                     .scratch = scratch.mutable_data_ptr()},
                                    stream_of(x)));
  return to_z;
}

// gradient' x in float32.
at::Tensor weight_gradient(const at::Tensor& gradient, const at::Tensor& x, const at::Tensor& weight) {
  const cuda::LayerShape shape = shape_of(x, weight);
  if (!cuda::has_weight_gradient(shape)) return float_product(gradient, x);
  const at::Tensor to_weight = at::empty(weight.sizes(), weight.options().dtype(at::kFloat));
  const at::Tensor scratch = bytes_like(cuda::weight_gradient_scratch(shape), x);
  check_launch(cuda::layer_weight_gradient({.shape = shape,
                                            .gradient = gradient.const_data_ptr(),
                                            .x = x.const_data_ptr(),
                                            .to_weight = floats_of(to_weight),
                                            .scratch = scratch.mutable_data_ptr()},
                                           stream_of(x)));
  return to_weight;
}

// Parameters: weight and bias of each hidden layer, then those of the head. Saved: x and the output of each hidden
// layer, then each hidden layer's weight as it was multiplied, then the head's.
struct FusedMlp : torch::autograd::Function<FusedMlp> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, at::TensorList parameters, bool has_head) {
    const c10::cuda::CUDAGuard guard(x.device());
    const std::size_t layers = parameters.size() / 2 - (has_head ? 1 : 0);
    variable_list outputs{x}, weights;
    for (std::size_t l = 0; l < layers; ++l) weights.push_back(parameters[2 * l]);
    variable_list kept = rounded(weights);
    for (std::size_t l = 0; l < layers; ++l) {
      outputs.push_back(forward_layer(outputs.back(), kept[l], parameters[2 * l + 1]));
    }
    at::Tensor result = outputs.back();
    if (has_head) {
      const at::Tensor &last = outputs.back(), &weight = parameters[2 * layers], &bias = parameters[2 * layers + 1];
      kept.push_back(weight);
      result = at::empty({x.size(0), 1}, weight.options());
      check_launch(cuda::row_forward(row_of(last, weight, bias), floats_of(result), stream_of(x)));
    }
    context->saved_data["has_head"] = has_head;
    outputs.insert(outputs.end(), kept.begin(), kept.end());
    context->save_for_backward(std::move(outputs));
    return result;
  }

  static variable_list backward(AutogradContext* context, variable_list& incoming) {
    refuse_second_derivative("Mlp");
    const variable_list saved = context->get_saved_variables();
    const bool has_head = context->saved_data["has_head"].toBool();
    const std::size_t layers = (saved.size() - (has_head ? 2 : 1)) / 2;
    const auto x_of = [&](std::size_t l) -> const at::Tensor& { return saved[l]; };
    const auto weight_of = [&](std::size_t l) -> const at::Tensor& { return saved[layers + 1 + l]; };
    const c10::cuda::CUDAGuard guard(saved[0].device());

    variable_list gradients(2 + 2 * layers + (has_head ? 2 : 0));  // of x, the parameters, and has_head
    const auto to_weight = [&](std::size_t l) -> at::Tensor& { return gradients[1 + 2 * l]; };
    const auto to_bias = [&](std::size_t l) -> at::Tensor& { return gradients[2 + 2 * l]; };

    at::Tensor gradient = has_head ? through_head(incoming[0], x_of(layers), weight_of(layers), to_bias(layers - 1),
                                                  to_weight(layers), to_bias(layers))
                                   : through_relu(incoming[0], x_of(layers), to_bias(layers - 1));
    for (std::size_t l = layers - 1; l > 0; --l) {
      to_weight(l) = weight_gradient(gradient, x_of(l), weight_of(l));
      gradient = gradient_below(gradient, weight_of(l), x_of(l), to_bias(l - 1));
    }
    to_weight(0) = weight_gradient(gradient, x_of(0), weight_of(0));
    if (context->needs_input_grad(0)) gradients[0] = at::mm(gradient, weight_of(0));
    return gradients;
  }

 private:
  static cuda::Row row_of(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
    return {.x = x.const_data_ptr(),
            .weight = weight.const_data_ptr<float>(),
            .bias = bias.defined() ? bias.const_data_ptr<float>() : nullptr,
            .rows = x.size(0),
            .columns = x.size(1),
            .element = element_of(x.scalar_type())};
  }

  // From the logits' gradient to that of the last hidden layer before its ReLU; to those of the head and of the last
  // hidden layer's bias.
  static at::Tensor through_head(const at::Tensor& incoming, const at::Tensor& last, const at::Tensor& weight,
                                 at::Tensor& last_bias, at::Tensor& to_weight, at::Tensor& to_bias) {
    const int64_t n = last.size(1), count = cuda::sums_of_row(n, /*gated=*/true);
    const at::Tensor gradient = incoming.contiguous(), to_last = at::empty_like(last);
    const at::Tensor sums = at::empty({count}, weight.options());
    const at::Tensor scratch = bytes_like(cuda::parts_bytes(last.size(0), count), last);
    check_launch(cuda::row_backward(row_of(last, weight, {}),
                                    {.incoming = gradient.const_data_ptr<float>(),
                                     .to_x = to_last.mutable_data_ptr(),
                                     .sums = floats_of(sums),
                                     .gated = true,
                                     .scratch = scratch.mutable_data_ptr()},
                                    stream_of(last)));
    to_weight = sums.narrow(0, 0, n).view({1, n});
    to_bias = sums.narrow(0, n, 1);
    last_bias = sums.narrow(0, n + 1, n);
    return to_last;
  }

  static at::Tensor through_relu(const at::Tensor& incoming, const at::Tensor& last, at::Tensor& last_bias) {
    last_bias = at::empty({last.size(1)}, last.options().dtype(at::kFloat));
    const at::Tensor gradient = incoming.to(last.scalar_type()).contiguous(), to_last = at::empty_like(last);
    const at::Tensor scratch = bytes_like(cuda::parts_bytes(last.size(0), last.size(1)), last);
    check_launch(cuda::relu_gradient({.incoming = gradient.const_data_ptr(),
                                      .gate = last.const_data_ptr(),
                                      .outgoing = to_last.mutable_data_ptr(),
                                      .bias = floats_of(last_bias),
                                      .rows = last.size(0),
                                      .columns = last.size(1),
                                      .element = element_of(last.scalar_type()),
                                      .scratch = scratch.mutable_data_ptr()},
                                     stream_of(last)));
    return to_last;
  }
};

bool serves(const at::Tensor& x, const PlainLayer& layer) {
  const at::Tensor &weight = layer.weight, &bias = layer.bias;
  return weight.scalar_type() == at::kFloat && weight.is_contiguous() && bias.scalar_type() == at::kFloat &&
         bias.is_contiguous() && cuda::has_products(shape_of(x, weight));
}

}  // namespace

std::optional<at::Tensor> fused_mlp(const at::Tensor& x, const std::vector<PlainLayer>& hidden,
                                    const PlainLayer& head) {
  if (hidden.empty() || !is_device_matrix(x) || x.scalar_type() != at::kBFloat16) return std::nullopt;
  const c10::cuda::CUDAGuard guard(x.device());
  const auto served = [&](const PlainLayer& layer) { return serves(x, layer); };
  if (!std::ranges::all_of(hidden, served)) return std::nullopt;
  std::vector<at::Tensor> parameters;
  for (const PlainLayer& layer : hidden) parameters.insert(parameters.end(), {layer.weight, layer.bias});
  const bool has_head = head.weight.defined();
  if (has_head) parameters.insert(parameters.end(), {head.weight, head.bias});
  return FusedMlp::apply(x, at::TensorList(parameters), has_head);
}

}  // namespace afm::nn
