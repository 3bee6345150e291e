#include "libafm/nn/mlp.h"

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

#include "tests/nn/gradient_check.h"

namespace afm::nn {
namespace {

Mlp random_mlp(const MlpOptions& options) {
  Mlp mlp(options);
  const torch::NoGradGuard no_grad;
  for (auto& item : mlp->named_parameters()) item.value().normal_(0, 0.5);
  return mlp;
}

// The same network of torch's own modules, with the same parameters; without dropout.
torch::nn::Sequential torch_twin(MlpImpl& mlp) {
  torch::nn::Sequential twin;
  const auto linear = [&](Linear& layer) {
    torch::nn::Linear copy(layer->options.in_features, layer->options.out_features);
    const torch::NoGradGuard no_grad;
    copy->weight.copy_(layer->weight);
    copy->bias.copy_(layer->bias);
    twin->push_back(copy);
  };
  for (std::size_t i = 0; i < mlp.layers.size(); ++i) {
    linear(mlp.layers[i]);
    if (!mlp.norms.empty()) {
      twin->push_back(
          torch::nn::BatchNorm1d(std::dynamic_pointer_cast<torch::nn::BatchNorm1dImpl>(mlp.norms[i]->clone())));
    }
    twin->push_back(torch::nn::ReLU());
  }
  if (mlp.head) linear(mlp.head);
  return twin;
}

const std::vector<MlpOptions> kForms{{.in_features = 6, .hidden = {8, 5}},
                                     {.in_features = 6, .hidden = {8, 5}, .batch_norm = false},
                                     {.in_features = 6, .hidden = {8}, .out_features = 0},
                                     {.in_features = 6, .hidden = {}, .out_features = 3},
                                     {.in_features = 6, .hidden = {}, .out_features = 0}};

TEST_CASE("an Mlp is torch's modules in sequence: outputs, gradients and running statistics, training and evaluating") {
  torch::manual_seed(1);
  for (const MlpOptions& options : kForms) {
    Mlp mlp = random_mlp(options);
    auto twin = torch_twin(*mlp);
    twin->to(at::kDouble);
    for (const bool training : {true, false}) {
      mlp->train(training);
      twin->train(training);
      const at::Tensor x = torch::randn({200, 6});
      const at::Tensor y = mlp->forward(x);
      const at::Tensor exact = twin->is_empty() ? x.to(at::kDouble) : twin->forward(x.to(at::kDouble));
      CHECK(y.sizes() == at::IntArrayRef{200, mlp->output_width()});
      CHECK(relative_error(y, exact) < 1e-5);
      if (mlp->parameters().empty()) continue;
      const at::Tensor weights = torch::randn_like(exact);
      mlp->zero_grad();
      twin->zero_grad();
      y.backward(weights.to(at::kFloat));
      exact.backward(weights);
      std::size_t at_module = 0;
      for (std::size_t i = 0; i < mlp->layers.size(); ++i) {
        auto* linear = twin->ptr(at_module++)->as<torch::nn::Linear>();
        CHECK(relative_error(mlp->layers[i]->weight.grad(), linear->weight.grad()) < 1e-4);
        CHECK(relative_error(mlp->layers[i]->weight.grad() * 1.01, linear->weight.grad()) > 1e-4);
        if (!mlp->norms.empty()) {
          auto* norm = twin->ptr(at_module++)->as<torch::nn::BatchNorm1d>();
          CHECK(relative_error(mlp->norms[i]->weight.grad(), norm->weight.grad()) < 1e-4);
          CHECK(relative_error(mlp->norms[i]->bias.grad(), norm->bias.grad()) < 1e-4);
          CHECK(relative_error(mlp->norms[i]->running_mean, norm->running_mean) < 1e-5);
          CHECK(relative_error(mlp->norms[i]->running_var, norm->running_var) < 1e-5);
        }
        ++at_module;
      }
    }
  }
}

TEST_CASE("the gradients of an Mlp in float64 are its central differences") {
  torch::manual_seed(2);
  for (const MlpOptions& options : kForms) {
    Mlp mlp = random_mlp(options);
    mlp->to(at::kDouble);
    std::vector<at::Tensor> inputs = mlp->parameters();
    inputs.push_back(torch::randn({5, 6}, at::TensorOptions(at::kDouble).requires_grad(true)));
    CHECK(gradient_error([&] { return mlp->forward(inputs.back()); }, inputs) < 1e-5);
  }
}

TEST_CASE("dropout preserves the mean of a training pass and is off in evaluation") {
  torch::manual_seed(3);
  for (const bool batch_norm : {false, true}) {
    Mlp mlp = random_mlp({.in_features = 4, .hidden = {400}, .batch_norm = batch_norm, .dropout = 0.5});
    const torch::NoGradGuard no_grad;
    const at::Tensor x = torch::randn({64, 4});
    at::Tensor mean = torch::zeros({64, 1});
    for (int pass = 0; pass < 400; ++pass) mean += mlp->forward(x) / 400;
    mlp->options.dropout = 0;
    const at::Tensor whole = mlp->forward(x);
    CHECK((mean - whole).abs().max().item<double>() < 0.1 * whole.std().item<double>() + 1.5);
    CHECK((mean - whole).mean().abs().item<double>() < 0.3);
    mlp->options.dropout = 0.5;
    mlp->eval();
    CHECK(at::equal(mlp->forward(x), mlp->forward(x)));
  }
}

TEST_CASE("an Mlp names its parameters layer by layer") {
  Mlp mlp(MlpOptions{.in_features = 3, .hidden = {4, 5}});
  CHECK(mlp->named_parameters().keys() == std::vector<std::string>{"layers.0.weight", "layers.0.bias",
                                                                   "layers.1.weight", "layers.1.bias", "norms.0.weight",
                                                                   "norms.0.bias", "norms.1.weight", "norms.1.bias",
                                                                   "head.weight", "head.bias"});
  CHECK(mlp->layers.size() == 2);
  CHECK(mlp->norms.size() == 2);
  Mlp headless(MlpOptions{.in_features = 3, .hidden = {4}, .out_features = 0, .batch_norm = false});
  CHECK(headless->named_parameters().keys() == std::vector<std::string>{"layers.0.weight", "layers.0.bias"});
  CHECK(headless->output_width() == 4);
}

TEST_CASE("a factorized hidden layer works in an Mlp, and a clone of it is equal and independent") {
  torch::manual_seed(4);
  Mlp mlp = random_mlp({.in_features = 6, .hidden = {8, 5}});
  mlp->layers[1]->reshape({.ranks = {2}});
  const torch::NoGradGuard no_grad;
  for (auto& parameter : mlp->parameters()) parameter.normal_();
  const at::Tensor x = torch::randn({10, 6});
  mlp->forward(x);
  Mlp copy(std::dynamic_pointer_cast<MlpImpl>(mlp->clone()));
  mlp->eval();
  copy->eval();
  CHECK(at::equal(copy->forward(x), mlp->forward(x)));
  const at::Tensor before = mlp->forward(x);
  for (auto& parameter : copy->parameters()) parameter.add_(1);
  for (auto& buffer : copy->buffers()) buffer.add_(1);
  CHECK(at::equal(mlp->forward(x), before));
  CHECK_FALSE(at::equal(copy->forward(x), before));
}

TEST_CASE("Mlp options and inputs that break a rule are refused") {
  const auto refused = [](MlpOptions options, const std::string& sentence) {
    CHECK_THROWS_MATCHES(Mlp(options), std::invalid_argument, Catch::Matchers::Message(sentence));
  };
  refused({.in_features = 0}, "MlpOptions.in_features must be at least 1, got 0");
  refused({.hidden = {4, 0}}, "MlpOptions.hidden must each be at least 1, got 0");
  refused({.out_features = -1}, "MlpOptions.out_features must be at least 0, got -1");
  refused({.dropout = 1.0}, "MlpOptions.dropout must be in [0, 1), got 1");
  refused({.dropout = -0.5}, "MlpOptions.dropout must be in [0, 1), got -0.5");
  CHECK_THROWS_AS(Mlp(MlpOptions{.in_features = 3})->forward(torch::zeros({2, 4})), c10::Error);
}

TEST_CASE("one row cannot be trained with batch norm") {
  Mlp mlp(MlpOptions{.in_features = 3, .hidden = {4}});
  CHECK_THROWS_AS(mlp->forward(torch::zeros({1, 3})), std::exception);
  mlp->eval();
  CHECK(mlp->forward(torch::zeros({1, 3})).sizes() == at::IntArrayRef{1, 1});
}

TEST_CASE("an Mlp beside other parts of a logit adds them to its output, gradients too") {
  torch::manual_seed(5);
  Mlp mlp = random_mlp({.in_features = 6, .hidden = {8, 5}, .batch_norm = false});
  const at::Tensor x = torch::randn({50, 6}), beside = torch::randn({50}).requires_grad_();
  const at::Tensor bias = torch::randn({1}).requires_grad_();
  const at::Tensor logit = mlp->forward_beside(x, beside, bias), deep = mlp->forward(x).squeeze(1);
  CHECK(relative_error(logit, (deep + beside + bias).to(at::kDouble)) < 1e-6);
  CHECK(relative_error(logit, (deep + beside).to(at::kDouble)) > 1e-2);
  const at::Tensor weights = torch::randn({50});
  const auto gradients = torch::autograd::grad({(logit * weights).sum()}, {beside, bias});
  CHECK(at::equal(gradients[0], weights));
  CHECK(at::allclose(gradients[1], weights.sum().view({1}), 1e-4, 1e-5));
}

TEST_CASE("an Mlp refuses an input of another width, and parts beside another output than one") {
  const at::Tensor x = torch::randn({3, 6}), beside = torch::zeros({3}), bias = torch::zeros({1});
  Mlp one(MlpOptions{.in_features = 6, .hidden = {8}}), none(MlpOptions{.in_features = 6, .out_features = 0});
  CHECK_THROWS_AS(one->forward(x.narrow(1, 0, 5)), c10::Error);
  CHECK_THROWS_AS(one->forward_beside(x.narrow(1, 0, 5), beside, bias), c10::Error);
  CHECK_THROWS_AS(none->forward_beside(x, beside, bias), c10::Error);
}

}  // namespace
}  // namespace afm::nn
