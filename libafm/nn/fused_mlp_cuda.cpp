#include "libafm/nn/fused_mlp.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/autograd/custom_function.h>

#include "libafm/cuda/activation.h"
#include "libafm/cuda/products.h"
#include "libafm/nn/cpu_kernels.h"
#include "libafm/nn/cuda_launch.h"
#include "libafm/nn/device_share.h"
#include "libafm/nn/mixed_product.h"

namespace afm::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

cuda::LayerShape shape_of(const at::Tensor& x, const at::Tensor& weight, int64_t runs) {
  return {.rows = x.size(0), .inputs = weight.size(1), .outputs = weight.size(0), .runs = runs};
}

at::Tensor forward_layer(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, int64_t runs) {
  const at::Tensor y = at::empty({x.size(0), weight.size(0)}, x.options());
  check_launch(cuda::layer_forward({.shape = shape_of(x, weight, runs),
                                    .x = x.const_data_ptr(),
                                    .weight = weight.const_data_ptr(),
                                    .bias = bias.const_data_ptr<float>(),
                                    .y = y.mutable_data_ptr()},
                                   stream_of(x)));
  return y;
}

// From a layer's gradient to that of what the layer below gives before its ReLU; `bias` becomes that layer's.
at::Tensor gradient_below(const at::Tensor& gradient, const at::Tensor& weight, const at::Tensor& x, int64_t runs,
                          at::Tensor& bias) {
  const cuda::LayerShape shape = shape_of(x, weight, runs);
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

// gradient weight, like x.
at::Tensor input_gradient(const at::Tensor& gradient, const at::Tensor& weight, const at::Tensor& x, int64_t runs) {
  const cuda::LayerShape shape = shape_of(x, weight, runs);
  if (!cuda::has_input_gradient(shape)) return at::mm(gradient, weight);
  const at::Tensor to_x = at::empty_like(x);
  check_launch(cuda::layer_gradient({.shape = shape,
                                     .gradient = gradient.const_data_ptr(),
                                     .weight = weight.const_data_ptr(),
                                     .x = nullptr,
                                     .to_z = to_x.mutable_data_ptr(),
                                     .sums = nullptr,
                                     .scratch = nullptr},
                                    stream_of(x)));
  return to_x;
}

// The gradients of weights, beside the gradients of inputs that they do not wait for: on a stream of their own where a
// layer alone leaves part of the device without work and the run has it to itself. At its end the stream that was
// current waits for them; until then all that they read and write is kept.
class WeightGradients {
 public:
  WeightGradients(at::Device device, int64_t runs)
      : main_(c10::cuda::getCurrentCUDAStream(device.index())),
        side_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index())),
        runs_(runs) {}
  ~WeightGradients() {
    if (kept_.empty()) return;
    at::cuda::CUDAEvent done;
    done.record(side_);
    done.block(main_);
  }
  WeightGradients(const WeightGradients&) = delete;
  WeightGradients& operator=(const WeightGradients&) = delete;

  // gradient' x in float32.
  at::Tensor of(const at::Tensor& gradient, const at::Tensor& x, const at::Tensor& weight) {
    const cuda::LayerShape shape = shape_of(x, weight, runs_);
    if (!cuda::has_weight_gradient(shape)) return float_product(gradient, x);
    const at::Tensor to_weight = at::empty(weight.sizes(), weight.options().dtype(at::kFloat));
    const at::Tensor scratch = bytes_like(cuda::weight_gradient_scratch(shape), x);
    const cuda::LayerWeightGradient task{.shape = shape,
                                         .gradient = gradient.const_data_ptr(),
                                         .x = x.const_data_ptr(),
                                         .to_weight = floats_of(to_weight),
                                         .scratch = scratch.mutable_data_ptr()};
    if (runs_ > 1) {
      check_launch(cuda::layer_weight_gradient(task, main_));
      return to_weight;
    }
    at::cuda::CUDAEvent ready;
    ready.record(main_);
    ready.block(side_);
    kept_.insert(kept_.end(), {gradient, scratch, to_weight});
    check_launch(cuda::layer_weight_gradient(task, side_));
    return to_weight;
  }

 private:
  c10::cuda::CUDAStream main_, side_;
  int64_t runs_;
  std::vector<at::Tensor> kept_;
};

// Inputs: x, weight and bias of each hidden layer, then what PlainHead has of the head and beside it. Saved: x and the
// output of each hidden layer, then each hidden layer's weight as it was multiplied, then the head's.
struct FusedMlp : torch::autograd::Function<FusedMlp> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, at::TensorList parameters, int64_t layers) {
    const c10::cuda::CUDAGuard guard(x.device());
    const auto hidden = static_cast<std::size_t>(layers);
    const int64_t runs = DeviceShareScope::runs();  // of this thread; the backward pass has another
    variable_list outputs{x}, weights;
    for (std::size_t l = 0; l < hidden; ++l) weights.push_back(parameters[2 * l]);
    variable_list kept = rounded(weights);
    for (std::size_t l = 0; l < hidden; ++l) {
      outputs.push_back(forward_layer(outputs.back(), kept[l], parameters[2 * l + 1], runs));
    }
    const at::TensorList rest = parameters.slice(2 * hidden);
    at::Tensor result = outputs.back();
    if (!rest.empty()) {
      kept.push_back(rest[0]);
      result = at::empty({x.size(0), 1}, rest[0].options());
      cuda::Row row = row_of(outputs.back(), rest[0]);
      row.bias = rest[1].const_data_ptr<float>();
      if (rest.size() > 2) {
        row.beside = rest[2].const_data_ptr<float>();
        row.beside_bias = rest[3].const_data_ptr<float>();
      }
      check_launch(cuda::row_forward(row, floats_of(result), stream_of(x)));
    }
    context->saved_data["layers"] = layers;
    context->saved_data["runs"] = runs;
    context->saved_data["parts_of_head"] = static_cast<int64_t>(rest.size());
    outputs.insert(outputs.end(), kept.begin(), kept.end());
    context->save_for_backward(std::move(outputs));
    return result;
  }

  static variable_list backward(AutogradContext* context, variable_list& incoming) {
    refuse_second_derivative("Mlp");
    const variable_list saved = context->get_saved_variables();
    const auto layers = static_cast<std::size_t>(context->saved_data["layers"].toInt());
    const auto parts_of_head = static_cast<std::size_t>(context->saved_data["parts_of_head"].toInt());
    const int64_t runs = context->saved_data["runs"].toInt();
    const auto x_of = [&](std::size_t l) -> const at::Tensor& { return saved[l]; };
    const auto weight_of = [&](std::size_t l) -> const at::Tensor& { return saved[layers + 1 + l]; };
    const c10::cuda::CUDAGuard guard(saved[0].device());

    variable_list gradients(1 + 2 * layers + parts_of_head + 1);  // the last is that of a number
    const auto to_weight = [&](std::size_t l) -> at::Tensor& { return gradients[1 + 2 * l]; };
    const auto to_bias = [&](std::size_t l) -> at::Tensor& { return gradients[2 + 2 * l]; };

    at::Tensor gradient;
    if (parts_of_head > 0) {
      gradient = through_head(incoming[0], x_of(layers), weight_of(layers), to_bias(layers - 1), to_weight(layers),
                              to_bias(layers));
    } else {
      const Gated gated = through_relu(incoming[0], x_of(layers));
      gradient = gated.gradient;
      to_bias(layers - 1) = gated.sums;
    }
    if (parts_of_head > 2) {
      to_weight(layers + 1) = incoming[0].squeeze(1);
      to_bias(layers + 1) = to_bias(layers).clone();  // no two parameters share the memory of a gradient
    }
    WeightGradients weights(gradient.device(), runs);
    for (std::size_t l = layers - 1; l > 0; --l) {
      to_weight(l) = weights.of(gradient, x_of(l), weight_of(l));
      gradient = gradient_below(gradient, weight_of(l), x_of(l), runs, to_bias(l - 1));
    }
    to_weight(0) = weights.of(gradient, x_of(0), weight_of(0));
    if (context->needs_input_grad(0)) gradients[0] = input_gradient(gradient, weight_of(0), x_of(0), runs);
    return gradients;
  }

 private:
  // From the logits' gradient to that of the last hidden layer before its ReLU; to those of the head and of the last
  // hidden layer's bias.
  static at::Tensor through_head(const at::Tensor& incoming, const at::Tensor& last, const at::Tensor& weight,
                                 at::Tensor& last_bias, at::Tensor& to_weight, at::Tensor& to_bias) {
    const int64_t n = last.size(1), count = cuda::sums_of_row(n, /*gated=*/true);
    const at::Tensor gradient = incoming.contiguous(), to_last = at::empty_like(last);
    const at::Tensor sums = at::empty({count}, weight.options());
    const at::Tensor scratch = bytes_like(cuda::parts_bytes(last.size(0), count), last);
    check_launch(cuda::row_backward(row_of(last, weight),
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
};

bool serves(const at::Tensor& x, const PlainLayer& layer) {
  return is_array_beside(x, layer.weight) && is_array_beside(x, layer.bias) &&
         cuda::has_products(shape_of(x, layer.weight, 1));
}

bool is_vector_beside(const at::Tensor& x, const at::Tensor& values, int64_t size) {
  return is_array_beside(x, values) && values.dim() == 1 && values.size(0) == size;
}

bool serves(const at::Tensor& x, const PlainHead& head) {
  if (!head.weight.defined()) return !head.beside.defined();
  if (!is_array_beside(x, head.weight) || !is_vector_beside(x, head.bias, 1)) return false;
  return !head.beside.defined() ||
         (is_vector_beside(x, head.beside, x.size(0)) && is_vector_beside(x, head.beside_bias, 1));
}

}  // namespace

std::optional<at::Tensor> fused_mlp(const at::Tensor& x, const std::vector<PlainLayer>& hidden, const PlainHead& head) {
  if (hidden.empty() || !is_device_matrix(x) || x.scalar_type() != at::kBFloat16) return std::nullopt;
  const c10::cuda::CUDAGuard guard(x.device());
  const auto served = [&](const PlainLayer& layer) { return serves(x, layer); };
  if (!std::ranges::all_of(hidden, served) || !serves(x, head)) return std::nullopt;
  std::vector<at::Tensor> parameters;
  for (const PlainLayer& layer : hidden) parameters.insert(parameters.end(), {layer.weight, layer.bias});
  if (head.weight.defined()) parameters.insert(parameters.end(), {head.weight, head.bias});
  if (head.beside.defined()) parameters.insert(parameters.end(), {head.beside, head.beside_bias});
  return FusedMlp::apply(x, at::TensorList(parameters), static_cast<int64_t>(hidden.size()));
}

}  // namespace afm::nn
