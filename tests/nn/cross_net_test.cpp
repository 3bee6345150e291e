#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include <cmath>

#include "libafm/nn/interaction.h"
#include "tests/nn/gradient_check.h"

namespace afm::nn {
namespace {

CrossNet random_net(CrossNetOptions options) {
  CrossNet net(options);
  const torch::NoGradGuard no_grad;
  for (auto& parameter : net->parameters()) parameter.normal_(0, 0.5);
  return net;
}

// Layer by layer, as the papers write it.
at::Tensor by_definition(CrossNetImpl& net, const at::Tensor& x0) {
  at::Tensor x = x0;
  for (int64_t l = 0; l < net.options.layers; ++l) {
    if (net.options.form == CrossForm::kVector) {
      x = x0 * (x * net.weight[l]).sum(1, true) + net.bias[l] + x;
    } else {
      Linear& layer = net.layers[static_cast<std::size_t>(l)];
      x = x0 * (at::mm(x, layer->weight.t()) + layer->bias) + x;
    }
  }
  return x;
}

TEST_CASE("the cross network is its layers one after the other, in both forms") {
  torch::manual_seed(1);
  for (const CrossForm form : {CrossForm::kVector, CrossForm::kMatrix}) {
    for (const int64_t layers : {1, 2, 5}) {
      CrossNet net = random_net({.in_features = 7, .layers = layers, .form = form});
      net->to(at::kDouble);
      for (const int64_t rows : {0, 1, 33}) {
        const at::Tensor x0 = torch::randn({rows, 7}, at::kDouble);
        const at::Tensor expected = by_definition(*net, x0);
        CHECK(net->forward(x0).sizes() == expected.sizes());
        CHECK(relative_error(net->forward(x0), expected) < 1e-12);
      }
      net->to(at::kFloat);
      const at::Tensor x0 = torch::randn({64, 7});
      CHECK(relative_error(net->forward(x0), by_definition(*net, x0)) < 1e-4);
      CHECK(relative_error(net->forward(x0) * 1.01, by_definition(*net, x0)) > 1e-4);
    }
  }
}

TEST_CASE("a cross network with a row behind it is the row of its output") {
  torch::manual_seed(3);
  for (const CrossForm form : {CrossForm::kVector, CrossForm::kMatrix}) {
    for (const int64_t layers : {1, 3, 9}) {
      CrossNet net = random_net({.in_features = 7, .layers = layers, .form = form});
      net->to(at::kDouble);
      for (const int64_t rows : {0, 1, 33}) {
        const at::Tensor x0 = torch::randn({rows, 7}, at::kDouble), row = torch::randn({1, 7}, at::kDouble);
        const at::Tensor expected = at::mv(by_definition(*net, x0), row[0]);
        const auto [same, score] = net->project(x0, row);
        CHECK(same.is_same(x0));
        CHECK(score.sizes() == expected.sizes());
        CHECK(relative_error(score, expected) < 1e-12);
        if (rows > 0) CHECK(relative_error(score * 1.01, expected) > 1e-12);
      }
      CHECK_THROWS_WITH(net->project(torch::randn({2, 7}, at::kDouble), torch::randn({7}, at::kDouble)),
                        Catch::Matchers::ContainsSubstring("CrossNet: expected a row [1, 7], got [7]"));
    }
  }
}

TEST_CASE("the gradients of the cross network are its central differences") {
  torch::manual_seed(2);
  for (const CrossForm form : {CrossForm::kVector, CrossForm::kMatrix}) {
    CrossNet net = random_net({.in_features = 4, .layers = 3, .form = form});
    net->to(at::kDouble);
    auto inputs = net->parameters();
    inputs.push_back(torch::randn({5, 4}, at::TensorOptions(at::kDouble).requires_grad(true)));
    CHECK(gradient_error([&] { return net->forward(inputs.back()); }, inputs) < 1e-6);
  }
}

TEST_CASE("the names and fresh values of the cross network are FuxiCTR's") {
  torch::manual_seed(3);
  CrossNet vectors(CrossNetOptions{.in_features = 999, .layers = 4});
  CHECK(vectors->named_parameters().keys() == std::vector<std::string>{"weight", "bias"});
  CHECK(vectors->weight.sizes() == at::IntArrayRef{4, 999});
  CHECK(std::abs(vectors->weight.std().item<double>() / std::sqrt(2.0 / 1000) - 1) < 0.05);
  CHECK(vectors->bias.abs().max().item<double>() == 0);
  CrossNet matrices(CrossNetOptions{.in_features = 3, .layers = 2, .form = CrossForm::kMatrix});
  CHECK(matrices->named_parameters().keys() ==
        std::vector<std::string>{"layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"});
  CHECK(matrices->layers.size() == 2);
}

TEST_CASE("a clone of the cross network computes with its own parameters") {
  for (const CrossForm form : {CrossForm::kVector, CrossForm::kMatrix}) {
    CrossNet net = random_net({.in_features = 3, .layers = 2, .form = form});
    CrossNet copy(std::dynamic_pointer_cast<CrossNetImpl>(net->clone()));
    const at::Tensor x0 = torch::randn({4, 3});
    CHECK(at::equal(copy->forward(x0), net->forward(x0)));
    const torch::NoGradGuard no_grad;
    const at::Tensor before = net->forward(x0);
    for (auto& parameter : copy->parameters()) parameter.add_(1);
    CHECK(at::equal(net->forward(x0), before));
    CHECK_FALSE(at::equal(copy->forward(x0), before));
  }
}

TEST_CASE("cross network options and inputs that break a rule are refused") {
  using Catch::Matchers::Message;
  CHECK_THROWS_MATCHES(CrossNet(CrossNetOptions{.in_features = 0}), std::invalid_argument,
                       Message("CrossNetOptions.in_features must be at least 1, got 0"));
  CHECK_THROWS_MATCHES(CrossNet(CrossNetOptions{.in_features = 2, .layers = 0}), std::invalid_argument,
                       Message("CrossNetOptions.layers must be at least 1, got 0"));
  CHECK_THROWS_AS(CrossNet(CrossNetOptions{.in_features = 2})->forward(torch::zeros({3, 4})), c10::Error);
}

}  // namespace
}  // namespace afm::nn
