#include "libafm/nn/linear.h"

#include <cmath>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "tests/core/temporary_folder.h"
#include "tests/nn/tiny_ranker.h"

namespace afm::nn {

using afm::testing::largest_difference;
using afm::testing::message_of;
using afm::testing::numerical_gradient;

constexpr double kRounding = 1e-12;  // float64 sums of a few dozen products
constexpr double kGradient = 1e-6;   // of central differences with a step of 1e-6

int64_t random_width() { return torch::randint(1, 9, {1}).item<int64_t>(); }

// A float64 layer of random shape with values of order one, of the form that `trial` asks for.
Linear random_linear(int64_t trial) {
  LinearOptions options{.in_features = random_width(), .out_features = random_width(), .bias = trial % 2 == 0};
  if (trial % 4 >= 2) {
    options.rank = torch::randint(std::min(options.in_features, options.out_features) + 1, {1}).item<int64_t>();
    options.activation = static_cast<FactorActivation>(trial % 3);
  }
  Linear layer(options);
  layer->to(torch::kFloat64);
  const torch::NoGradGuard no_grad;
  for (auto& parameter : layer->parameters()) parameter.normal_();
  return layer;
}

at::Tensor by_hand(const LinearImpl& layer, const at::Tensor& x) {
  if (layer.is_dense()) {
    const auto y = torch::matmul(x, layer.weight.t());
    return layer.bias.defined() ? y + layer.bias : y;
  }
  auto z = torch::matmul(x, layer.down.t()) + layer.down_bias;
  if (layer.options.activation != FactorActivation::kNone) z = torch::clamp_min(z, 0);
  return torch::matmul(z, layer.up.t()) + layer.up_bias;
}

std::vector<std::string> parameter_names(const LinearImpl& layer) { return layer.named_parameters().keys(); }

TEST_CASE("a linear layer computes its formula, dense and factorized, for any leading shape") {
  torch::manual_seed(1);
  for (int64_t trial = 0; trial < 60; ++trial) {
    Linear layer = random_linear(trial);
    const int64_t n = layer->options.in_features;
    for (const auto& shape : {std::vector<int64_t>{n}, {5, n}, {2, 3, n}, {0, n}}) {
      const auto x = torch::randn(shape, torch::kFloat64);
      const auto y = layer->forward(x);
      REQUIRE(y.sizes() == by_hand(*layer, x).sizes());
      CHECK(largest_difference(y, by_hand(*layer, x)) < kRounding);
    }
  }
}

TEST_CASE("a linear layer of rank 0 is its output bias, and lets gradients through") {
  Linear layer(LinearOptions{.in_features = 5, .out_features = 3, .rank = 0});
  layer->to(torch::kFloat64);
  const auto bias = torch::randn({3}, torch::kFloat64);
  layer->set_factors({torch::zeros({0, 5}), torch::zeros({0}), torch::zeros({3, 0}), bias});
  const auto x = torch::randn({4, 5}, torch::TensorOptions(torch::kFloat64).requires_grad(true));
  const auto y = layer->forward(x);
  CHECK(torch::equal(y, bias.expand({4, 3})));
  y.sum().backward();
  CHECK(torch::equal(x.grad(), torch::zeros_like(x)));
  CHECK(torch::equal(layer->up_bias.grad(), torch::full({3}, 4.0, torch::kFloat64)));
}

TEST_CASE("gradients of a linear layer equal central differences in both shapes") {
  torch::manual_seed(2);
  for (int64_t trial = 0; trial < 24; ++trial) {
    Linear layer = random_linear(trial);
    const auto x =
        torch::randn({4, layer->options.in_features}, torch::TensorOptions(torch::kFloat64).requires_grad(true));
    const auto loss = [&] { return layer->forward(x).square().sum(); };
    loss().backward();
    auto tensors = layer->parameters();
    tensors.push_back(x);
    for (const auto& tensor : tensors) {
      CHECK(largest_difference(tensor.grad(), numerical_gradient(tensor.detach(), loss)) < kGradient * 100);
    }
  }
}

TEST_CASE("a full-rank pair reproduces the dense layer it came from") {
  torch::manual_seed(3);
  Linear layer(LinearOptions{.in_features = 6, .out_features = 4});
  layer->to(torch::kFloat64);
  const auto x = torch::randn({8, 6}, torch::kFloat64);
  const auto before = layer->forward(x).detach();
  const auto weight = layer->weight.detach().clone(), bias = layer->bias.detach().clone();
  layer->set_factors({weight, torch::zeros({4}), torch::eye(4, torch::kFloat64), bias});
  CHECK(largest_difference(layer->forward(x), before) < kRounding);
}

TEST_CASE("set_factors keeps the layer's dtype and copies the values") {
  Linear layer(3, 2);
  Factors factors{torch::randn({1, 3}, torch::kFloat64), torch::randn({1}, torch::kFloat64),
                  torch::randn({2, 1}, torch::kFloat64), torch::randn({2}, torch::kFloat64)};
  const auto before = factors.down.to(torch::kFloat32).clone();
  layer->set_factors(factors, FactorActivation::kShiftedRelu);
  factors.down.zero_();
  CHECK(layer->down.scalar_type() == torch::kFloat32);
  CHECK(torch::equal(layer->down, before));
  CHECK(layer->down.requires_grad());
  CHECK(layer->plan() == LayerPlan{.ranks = {1}, .activation = FactorActivation::kShiftedRelu});
}

TEST_CASE("reshape swaps the parameters and keeps the dtype") {
  Linear layer(LinearOptions{.in_features = 5, .out_features = 3, .bias = false});
  layer->to(torch::kFloat64);
  CHECK(parameter_names(*layer) == std::vector<std::string>{"weight"});
  CHECK(layer->plan() == LayerPlan{});

  layer->reshape({.ranks = {2}});
  CHECK(parameter_names(*layer) == std::vector<std::string>{"down", "down_bias", "up", "up_bias"});
  CHECK_FALSE(layer->weight.defined());
  CHECK(layer->down.sizes() == at::IntArrayRef({2, 5}));
  CHECK(layer->up.sizes() == at::IntArrayRef({3, 2}));
  for (const auto& parameter : layer->parameters()) CHECK(parameter.scalar_type() == torch::kFloat64);

  layer->reshape({});
  CHECK(parameter_names(*layer) == std::vector<std::string>{"weight"});
  CHECK(layer->is_dense());
  CHECK_FALSE(layer->up.defined());
  CHECK(layer->weight.scalar_type() == torch::kFloat64);
}

TEST_CASE("a clone of a linear layer is equal and independent in both shapes") {
  torch::manual_seed(4);
  for (int64_t trial = 0; trial < 12; ++trial) {
    Linear layer = random_linear(trial);
    const auto copy = std::dynamic_pointer_cast<LinearImpl>(layer->clone());
    REQUIRE(copy != nullptr);
    const auto x = torch::randn({3, layer->options.in_features}, torch::kFloat64);
    CHECK(torch::equal(copy->forward(x), layer->forward(x)));
    const torch::NoGradGuard no_grad;
    for (auto& parameter : copy->parameters()) parameter.add_(1.0);
    for (const auto& item : layer->named_parameters()) {
      if (item.value().numel() > 0) CHECK_FALSE(torch::equal(item.value(), copy->named_parameters()[item.key()]));
    }
  }
}

TEST_CASE("a cloned layer that was reshaped after construction keeps its new shape") {
  Linear layer(6, 5);
  layer->set_factors({torch::randn({2, 6}), torch::randn({2}), torch::randn({5, 2}), torch::randn({5})});
  const auto copy = std::dynamic_pointer_cast<LinearImpl>(layer->clone());
  const auto x = torch::randn({3, 6});
  CHECK(copy->plan() == layer->plan());
  CHECK(torch::equal(copy->forward(x), layer->forward(x)));
}

TEST_CASE("fresh weights are Xavier normal and fresh biases zero") {
  torch::manual_seed(5);
  const Linear dense(300, 500);
  CHECK(dense->bias.abs().max().item<double>() == 0.0);
  CHECK(std::abs(dense->weight.std().item<double>() - std::sqrt(2.0 / 800.0)) < 0.01 * std::sqrt(2.0 / 800.0));
  const Linear pair(LinearOptions{.in_features = 300, .out_features = 500, .rank = 200});
  CHECK(std::abs(pair->down.std().item<double>() - std::sqrt(2.0 / 500.0)) < 0.02 * std::sqrt(2.0 / 500.0));
  CHECK(std::abs(pair->up.std().item<double>() - std::sqrt(2.0 / 700.0)) < 0.02 * std::sqrt(2.0 / 700.0));
}

TEST_CASE("the output hook sees each forward until it is removed") {
  Linear layer(3, 2);
  std::vector<at::Tensor> seen;
  layer->set_output_hook([&](const at::Tensor& input, const at::Tensor& output) { seen = {input, output}; });
  const auto x = torch::randn({4, 3});
  const auto y = layer->forward(x);
  REQUIRE(seen.size() == 2);
  CHECK(seen[0].is_same(x));
  CHECK(seen[1].is_same(y));
  seen.clear();
  layer->set_output_hook({});
  layer->forward(x);
  CHECK(seen.empty());
}

TEST_CASE("a linear layer prints its shape") {
  std::ostringstream text;
  text << *Linear(LinearOptions{.in_features = 3, .out_features = 2, .bias = false}) << '\n'
       << *Linear(LinearOptions{.in_features = 3, .out_features = 2, .rank = 1});
  CHECK(text.str() ==
        "afm::nn::Linear(in_features=3, out_features=2, bias=false)\n"
        "afm::nn::Linear(in_features=3, out_features=2, bias=true, rank=1, activation=none)");
}

TEST_CASE("a linear layer refuses bad shapes with one sentence") {
  using Bad = std::invalid_argument;
  CHECK(message_of<Bad>([] { Linear(0, 2); }) == "LinearOptions.in_features must be at least 1, got 0");
  CHECK(message_of<Bad>([] { Linear(2, -1); }) == "LinearOptions.out_features must be at least 1, got -1");
  CHECK(message_of<Bad>([] { Linear(LinearOptions{.in_features = 5, .out_features = 3, .rank = 4}); }) ==
        "LinearOptions.rank must be in [0, 3] for a layer [3, 5], got 4");
  Linear layer(5, 3);
  CHECK(message_of<Bad>([&] { layer->reshape({.ranks = {-1}}); }) ==
        "LinearOptions.rank must be in [0, 3] for a layer [3, 5], got -1");
  CHECK(message_of<Bad>([&] { layer->reshape({.ranks = {1, 2}}); }) == "a linear layer must have one rank, got 2");
  CHECK(message_of<Bad>([&] {
          layer->set_factors({torch::zeros({2, 4}), {}, {}, {}});
        }) == "Linear: factors.down must have the shape [2, 5], got [2, 4]");
  CHECK(message_of<Bad>([&] {
          layer->set_factors({torch::zeros({2, 5}), torch::zeros({2}), {}, {}});
        }) == "Linear: factors.up must have the shape [3, 2], got no tensor");
  CHECK(layer->is_dense());
  CHECK_THROWS_AS(layer->forward(torch::zeros({2, 4})), c10::Error);
}

}  // namespace afm::nn
