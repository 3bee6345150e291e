#include "libafm/nn/hidden_activation.h"

#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/types.h>

#include "libafm/nn/cpu_kernels.h"
#include "libafm/nn/dropout_generator.h"
#include "libafm/nn/hidden_kernels.h"

namespace afm::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Matrix size_of(const at::Tensor& x) { return {x.size(0), x.size(1)}; }

// Note [Running statistics]
// As torch: exponential averages with the unbiased variance.
void update_running(torch::nn::BatchNorm1dImpl& norm, const ColumnMoments& moments, int64_t rows) {
  const double momentum = *norm.options.momentum();
  float *mean = norm.running_mean.mutable_data_ptr<float>(), *var = norm.running_var.mutable_data_ptr<float>();
  for (std::size_t c = 0; c < moments.mean.size(); ++c) {
    const double unbiased = moments.squares[c] / static_cast<double>(rows - 1);
    mean[c] = static_cast<float>(momentum * moments.mean[c] + (1 - momentum) * mean[c]);
    var[c] = static_cast<float>(momentum * unbiased + (1 - momentum) * var[c]);
  }
  norm.num_batches_tracked.add_(1);
}

// Batch norm with batch statistics, ReLU and dropout. Saves its input and its output (which the next layer saves
// anyway): a unit passes gradient on where the output is not zero.
struct NormActivation : torch::autograd::Function<NormActivation> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& gamma,
                            const at::Tensor& beta, torch::nn::BatchNorm1dImpl* norm, double rate) {
    const Matrix size = size_of(x);
    const Dropout dropout(rate);
    const float* input = x.const_data_ptr<float>();
    const ColumnMoments moments = column_moments(input, size);
    update_running(*norm, moments, size.rows);

    const at::Tensor statistics = at::empty({2, size.columns}, x.options());  // mean, 1 / standard deviation
    float *mean = statistics.mutable_data_ptr<float>(), *inverse = mean + size.columns;
    const float *g = gamma.const_data_ptr<float>(), *b = beta.const_data_ptr<float>();
    std::vector<float> gain(moments.mean.size()), shift(moments.mean.size());
    for (std::size_t c = 0; c < gain.size(); ++c) {
      const double variance = moments.squares[c] / static_cast<double>(size.rows);
      mean[c] = static_cast<float>(moments.mean[c]);
      inverse[c] = static_cast<float>(1 / std::sqrt(variance + norm->options.eps()));
      gain[c] = g[c] * inverse[c] * dropout.scale();  // ReLU and a positive factor commute
      shift[c] = b[c] * dropout.scale();
    }
    at::Tensor y = at::empty_like(x);
    normalize_activate_drop(input, size, mean, gain, shift, dropout, y.mutable_data_ptr<float>());
    context->save_for_backward({x, y, gamma, statistics});
    context->saved_data["scale"] = static_cast<double>(dropout.scale());
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list& gradients) {
    refuse_second_derivative("batch norm");
    const variable_list saved = context->get_saved_variables();
    const Matrix size = size_of(saved[0]);
    const float *x = saved[0].const_data_ptr<float>(), *g = saved[2].const_data_ptr<float>();
    const float *mean = saved[3].const_data_ptr<float>(), *inverse = mean + size.columns;
    at::Tensor grad_x = reuse_gradient(gradients[0]);
    const at::Tensor grad_y = gradients[0].contiguous();
    const auto scale = static_cast<float>(context->saved_data["scale"].toDouble());
    const GradientSums sums = differentiate_and_sum(grad_y.const_data_ptr<float>(), saved[1].const_data_ptr<float>(), x,
                                                    mean, size, scale, grad_x.mutable_data_ptr<float>());

    at::Tensor grad_gamma = at::empty_like(saved[2]), grad_beta = at::empty_like(saved[2]);
    float *to_gamma = grad_gamma.mutable_data_ptr<float>(), *to_beta = grad_beta.mutable_data_ptr<float>();
    std::vector<float> a(sums.plain.size()), b(a.size()), c(a.size());
    const auto rows = static_cast<double>(size.rows);
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double gain = static_cast<double>(g[i]) * inverse[i], weighted = sums.weighted[i] * inverse[i];
      to_gamma[i] = static_cast<float>(weighted);
      to_beta[i] = static_cast<float>(sums.plain[i]);
      a[i] = static_cast<float>(gain);
      b[i] = static_cast<float>(-gain * inverse[i] * weighted / rows);
      c[i] = static_cast<float>(-gain * sums.plain[i] / rows);
    }
    finish_norm_gradient(grad_x.mutable_data_ptr<float>(), x, mean, size, a, b, c);
    return {grad_x, grad_gamma, grad_beta, at::Tensor(), at::Tensor()};
  }
};

// ReLU and dropout, in place.
struct PlainActivation : torch::autograd::Function<PlainActivation> {
  static at::Tensor forward(AutogradContext* context, at::Tensor x, double rate) {
    const Dropout dropout(rate);
    activate_drop(x.mutable_data_ptr<float>(), size_of(x), dropout);
    context->mark_dirty({x});
    context->save_for_backward({x});
    context->saved_data["scale"] = static_cast<double>(dropout.scale());
    return x;
  }

  static variable_list backward(AutogradContext* context, variable_list& gradients) {
    refuse_second_derivative("ReLU and dropout");
    const at::Tensor y = context->get_saved_variables()[0];
    at::Tensor grad_x = reuse_gradient(gradients[0]);
    const at::Tensor grad_y = gradients[0].contiguous();
    const auto scale = static_cast<float>(context->saved_data["scale"].toDouble());
    differentiate_activation(grad_y.const_data_ptr<float>(), y.const_data_ptr<float>(), size_of(y), scale,
                             grad_x.mutable_data_ptr<float>());
    return {grad_x, at::Tensor()};
  }
};

// at::dropout() with the generator of this thread. Only a GPU has no say in it: train/lane.h sees to that one.
at::Tensor dropped(const at::Tensor& x, double rate) {
  if (!x.is_cpu()) return at::dropout(x, rate, /*train=*/true);
  return x * at::empty_like(x).bernoulli_(1 - rate, dropout_generator()).div_(1 - rate);
}

}  // namespace

at::Tensor hidden_activation(at::Tensor x, torch::nn::BatchNorm1dImpl* norm, double dropout, bool training) {
  if (training && is_cpu_float(x) && x.is_contiguous() && x.size(0) > 1) {
    if (norm == nullptr) return PlainActivation::apply(x, dropout);
    if (is_cpu_float(norm->weight)) return NormActivation::apply(x, norm->weight, norm->bias, norm, dropout);
  }
  if (norm != nullptr) x = norm->forward(x);
  x.relu_();
  return training && dropout > 0 ? dropped(x, dropout) : x;
}

}  // namespace afm::nn
