#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include <ATen/ATen.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/types.h>

#include "libafm/core/fail.h"
#include "libafm/nn/fused_cross.h"
#include "libafm/nn/interaction.h"
#include "libafm/nn/linear_relu.h"
#include "libafm/nn/module_list.h"

namespace afm::nn {
namespace {

CrossNetOptions checked(CrossNetOptions options) {
  if (options.in_features < 1) {
    fail<std::invalid_argument>("CrossNetOptions.in_features must be at least 1, got {}", options.in_features);
  }
  if (options.layers < 1) {
    fail<std::invalid_argument>("CrossNetOptions.layers must be at least 1, got {}", options.layers);
  }
  return options;
}

// Note [The vector form without its layers]
// x_l = a_l x_0 + B_l with one number a_l per row and one vector B_l for all rows:
//   a_{l+1} = a_l + a_l (x_0 . w_l) + B_l . w_l,   B_{l+1} = B_l + b_l,   a_0 = 1, B_0 = 0
// (science.md 6.2). So all layers cost one product x_0 W' [B, L]; only the result is of size [B, n], and with a row h
// behind it, x_L . h = a_L (x_0 . h) + B_L . h, not even that.

// a_L [B] from dots [B, L] (or more columns) and constants [L].
at::Tensor row_factors(const at::Tensor& dots, const at::Tensor& constants) {
  at::Tensor a = at::ones({dots.size(0)}, dots.options());
  for (int64_t l = 0; l < constants.size(0); ++l) a = at::addcmul(a, a, dots.select(1, l)) + constants[l];
  return a;
}

at::Tensor cross_with_vectors(const at::Tensor& x0, const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor sums = bias.cumsum(0);  // [L, n] B_1 .. B_L
  const at::Tensor a = row_factors(at::mm(x0, weight.t()), (sums - bias).mul(weight).sum(1));
  return at::addcmul(sums[-1], x0, a.unsqueeze(1));
}

at::Tensor project_vectors(const at::Tensor& x0, const at::Tensor& weight, const at::Tensor& bias,
                           const at::Tensor& row) {
  const at::Tensor sums = bias.cumsum(0), dots = at::mm(x0, at::cat({weight, row}).t());
  const at::Tensor a = row_factors(dots, (sums - bias).mul(weight).sum(1));
  return at::addcmul(sums[-1].dot(row[0]), a, dots.select(1, weight.size(0)));
}

// A cross network multiplies up to the power of its depth: without a kernel that adds up in float32 it takes no
// bfloat16.
at::Tensor at_least_float(const at::Tensor& x) { return x.scalar_type() == at::kBFloat16 ? x.to(at::kFloat) : x; }

}  // namespace

CrossNetImpl::CrossNetImpl(CrossNetOptions chosen) : options(checked(chosen)) { reset(); }

void CrossNetImpl::reset() {
  const int64_t n = options.in_features;
  layers.clear();
  if (options.form == CrossForm::kVector) {
    // FuxiCTR: each w_l is a Linear(n, 1) with Xavier normal weights.
    weight =
        register_parameter("weight", torch::randn({options.layers, n}) * std::sqrt(2.0 / static_cast<double>(n + 1)));
    bias = register_parameter("bias", torch::zeros({options.layers, n}));
    return;
  }
  const auto list = register_module("layers", torch::nn::ModuleList());
  for (int64_t l = 0; l < options.layers; ++l) list->push_back(Linear(n, n));
  layers = typed_children<Linear>(*this, "layers");
}

std::shared_ptr<torch::nn::Module> CrossNetImpl::clone(const std::optional<torch::Device>& device) const {
  auto copy = Cloneable::clone(device);
  auto& typed = dynamic_cast<CrossNetImpl&>(*copy);
  typed.layers = typed_children<Linear>(typed, "layers");
  return copy;
}

at::Tensor CrossNetImpl::forward(const at::Tensor& x0) {
  TORCH_CHECK(x0.dim() == 2 && x0.size(1) == options.in_features, "CrossNet: expected [B, ", options.in_features,
              "], got ", x0.sizes());
  if (options.form == CrossForm::kMatrix) return cross_with_matrices(x0).score;
  return cross_with_vectors(at_least_float(x0), weight, bias);
}

CrossNetImpl::Projection CrossNetImpl::project(const at::Tensor& x0, const at::Tensor& row) {
  TORCH_CHECK(row.dim() == 2 && row.size(0) == 1 && row.size(1) == options.in_features, "CrossNet: expected a row [1, ",
              options.in_features, "], got ", row.sizes());
  if (options.form == CrossForm::kMatrix) {
    const Projection crossed = cross_with_matrices(x0);
    return {crossed.x0, linear_row(crossed.score, row, {})};
  }
  if (const auto fused = fused_cross_row(x0, weight, bias, row)) return {fused->x0, fused->output};
  return {x0, project_vectors(at_least_float(x0), weight, bias, row)};
}

CrossNetImpl::Projection CrossNetImpl::cross_with_matrices(const at::Tensor& given) {
  if (std::ranges::all_of(layers, [](const Linear& layer) { return layer->is_plain(); })) {
    std::vector<at::Tensor> parameters;
    for (const Linear& layer : layers) parameters.insert(parameters.end(), {layer->weight, layer->bias});
    if (const auto fused = fused_cross_matrices(given, parameters)) return {fused->x0, fused->output};
  }
  const at::Tensor x0 = at_least_float(given);
  at::Tensor x = x0;
  for (Linear& layer : layers) x = at::addcmul(x, x0, layer->forward(x));
  return {given, x};
}

}  // namespace afm::nn
