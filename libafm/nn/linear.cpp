#include "libafm/nn/linear.h"

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <utility>

#include <ATen/ATen.h>
#include <fmt/ranges.h>
#include <torch/nn/init.h>
#include <torch/types.h>

#include "libafm/core/fail.h"
#include "libafm/nn/integer_weight.h"
#include "libafm/nn/linear_relu.h"

namespace afm::nn {
namespace {

void check_width(std::string_view name, int64_t width) {
  if (width < 1) fail<std::invalid_argument>("LinearOptions.{} must be at least 1, got {}", name, width);
}

void check_rank(const LinearOptions& options, int64_t rank) {
  const int64_t largest = std::min(options.in_features, options.out_features);
  if (rank >= 0 && rank <= largest) return;
  fail<std::invalid_argument>("LinearOptions.rank must be in [0, {}] for a layer [{}, {}], got {}", largest,
                              options.out_features, options.in_features, rank);
}

LinearOptions checked(const LinearOptions& options) {
  check_width("in_features", options.in_features);
  check_width("out_features", options.out_features);
  if (options.rank) check_rank(options, *options.rank);
  return options;
}

void check_factor(std::string_view name, const at::Tensor& factor, at::IntArrayRef shape) {
  if (factor.defined() && factor.sizes() == shape) return;
  fail<std::invalid_argument>("Linear: factors.{} must have the shape [{}], got {}", name, fmt::join(shape, ", "),
                              factor.defined() ? fmt::format("[{}]", fmt::join(factor.sizes(), ", ")) : "no tensor");
}

}  // namespace

LinearImpl::LinearImpl(LinearOptions chosen) : options(checked(chosen)) { reset(); }

void LinearImpl::reset() {
  allocate(BlankScope::options());
  reset_parameters();
}

void LinearImpl::reset_parameters() {
  if (BlankScope::active()) return;
  const torch::NoGradGuard no_grad;
  for (const auto& tensor : {weight, down, up}) {
    if (tensor.defined()) torch::nn::init::xavier_normal_(tensor);
  }
  for (const auto& tensor : {bias, down_bias, up_bias}) {
    if (tensor.defined()) tensor.zero_();
  }
}

void LinearImpl::pretty_print(std::ostream& stream) const {
  stream << fmt::format("afm::nn::Linear(in_features={}, out_features={}, bias={}", options.in_features,
                        options.out_features, options.bias || !is_dense());
  if (!is_dense()) stream << fmt::format(", rank={}, activation={}", *options.rank, name_of(options.activation));
  stream << ")";
}

at::Tensor LinearImpl::forward(const at::Tensor& x) {
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) == options.in_features, "Linear: expected [*, ", options.in_features,
              "], got ", x.sizes());
  if (is_plain() && options.out_features == 1) {
    if (const auto fused = fused_linear_row(x, weight, bias)) return *fused;
  }
  // Mixed precision (EmbeddingImpl::feature_type): weights stay float32 and are rounded where they meet their input.
  const auto fitting = [&](const at::Tensor& parameter) {
    return parameter.defined() && x.scalar_type() == at::kBFloat16 ? parameter.to(at::kBFloat16) : parameter;
  };
  at::Tensor y;
  if (is_dense()) {
    y = at::linear(x, fitting(values_of(weight, first_integers_)), fitting(bias));
  } else {
    at::Tensor latent = at::linear(x, fitting(values_of(down, first_integers_)), fitting(down_bias));
    if (options.activation != FactorActivation::kNone) latent.relu_();
    y = at::linear(latent, fitting(values_of(up, second_integers_)), fitting(up_bias));
  }
  call_hook(x, y);
  return y;
}

at::Tensor linear_row(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (const auto fused = fused_linear_row(x, weight, bias)) return fused->squeeze(1);
  return at::linear(x, weight, bias.defined() ? std::optional(bias) : std::nullopt).squeeze(1);
}

at::Tensor LinearImpl::forward_relu(const at::Tensor& x) {
  if (is_plain()) {
    if (const auto y = fused_linear_relu(x, weight, bias)) return *y;
  }
  return forward(x).relu_();
}

LayerPlan LinearImpl::plan() const {
  LayerPlan plan{.activation = options.activation, .bits = options.bits, .scale = options.scale};
  if (options.rank) plan.ranks = {*options.rank};
  return plan;
}

void LinearImpl::reshape(const LayerPlan& plan) {
  if (plan.ranks.size() > 1) {
    fail<std::invalid_argument>("a linear layer must have one rank, got {}", plan.ranks.size());
  }
  if (!plan.ranks.empty()) check_rank(options, plan.ranks[0]);
  if (plan.joint || !plan.tiers.empty()) fail<std::invalid_argument>("a linear layer has neither joint nor tiers");
  check_no_units(plan);
  const at::TensorOptions kept = (is_dense() ? weight : up_bias).options();
  options.rank = plan.ranks.empty() ? std::nullopt : std::optional(plan.ranks[0]);
  options.activation = is_dense() ? FactorActivation::kNone : plan.activation;
  options.bits = plan.bits;
  options.scale = plan.bits == Bits::kFloat ? ScaleBy::kRow : plan.scale;
  allocate(kept);
}

void LinearImpl::set_factors(const Factors& factors, FactorActivation activation) {
  const int64_t k = factors.down.defined() ? factors.down.size(0) : 0;
  check_factor("down", factors.down, {k, options.in_features});
  check_factor("down_bias", factors.down_bias, {k});
  check_factor("up", factors.up, {options.out_features, k});
  check_factor("up_bias", factors.up_bias, {options.out_features});
  reshape({.ranks = {k}, .activation = activation, .bits = options.bits, .scale = options.scale});
  const torch::NoGradGuard no_grad;
  down.copy_(factors.down);
  down_bias.copy_(factors.down_bias);
  up.copy_(factors.up);
  up_bias.copy_(factors.up_bias);
}

std::vector<IntegerParameter> LinearImpl::integer_parameters() const {
  if (!first_integers_) return {};
  if (is_dense()) return {{"weight", weight, first_integers_}};
  return {{"down", down, first_integers_}, {"up", up, second_integers_}};
}

void LinearImpl::train(bool on) {
  torch::nn::Module::train(on);
  for (const auto& integers : {first_integers_, second_integers_}) {
    if (integers) integers->forget();
  }
}

at::Tensor LinearImpl::values_of(const at::Tensor& parameter, const std::shared_ptr<IntegerWeight>& integers) const {
  return integers ? integers->values(parameter, /*keep=*/!is_training()) : parameter;
}

void LinearImpl::allocate(const at::TensorOptions& like) {
  const int64_t n = options.in_features, m = options.out_features, k = options.rank.value_or(0);
  const bool dense = is_dense();
  place("weight", weight, {m, n}, dense, like);
  place("bias", bias, {m}, dense && options.bias, like);
  place("down", down, {k, n}, !dense, like);
  place("down_bias", down_bias, {k}, !dense, like);
  place("up", up, {m, k}, !dense, like);
  place("up_bias", up_bias, {m}, !dense, like);
  first_integers_ = second_integers_ = nullptr;
  if (options.bits == Bits::kFloat) return;
  const auto integers_of = [this](const at::Tensor& matrix) {
    return std::make_shared<IntegerWeight>(options.bits, matrix_groups(matrix.size(0), matrix.size(1), options.scale));
  };
  first_integers_ = integers_of(dense ? weight : down);
  if (!dense) second_integers_ = integers_of(up);
}

void LinearImpl::place(const char* name, at::Tensor& member, at::IntArrayRef shape, bool present,
                       const at::TensorOptions& like) {
  if (parameters_.contains(name)) parameters_.erase(name);
  member = present ? register_parameter(name, torch::empty(shape, like)) : at::Tensor();
}

}  // namespace afm::nn
