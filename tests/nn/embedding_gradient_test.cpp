#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>

#include "libafm/nn/embedding.h"
#include "tests/nn/embedding_cases.h"
#include "tests/nn/gradient_check.h"

namespace afm::nn {
namespace {

constexpr double kNumericError = 1e-7;   // central differences of a quadratic function in float64
constexpr double kGradientError = 1e-5;  // sums over some hundred rows in float32

std::vector<at::Tensor> used_parameters(EmbeddingImpl& embedding) {
  std::vector<at::Tensor> used;
  for (const auto& parameter : embedding.parameters()) {
    if (parameter.numel() > 0) used.push_back(parameter);
  }
  return used;
}

std::vector<at::Tensor> gradients(EmbeddingImpl& embedding, const at::Tensor& ids, const at::Tensor& weights) {
  const at::Tensor scalar = (joined(embedding.lookup(ids)) * weights.to(embedding.parameters()[0].dtype())).sum();
  return torch::autograd::grad({scalar}, used_parameters(embedding));
}

TEST_CASE("the gradients of a lookup are its central differences") {
  torch::manual_seed(3);
  for (const auto& [name, options] : embedding_cases()) {
    INFO(name);
    Embedding embedding = random_embedding(options);
    embedding->to(at::kDouble);
    const at::Tensor ids = random_ids(options, 9);
    if (used_parameters(*embedding).empty()) continue;
    CHECK(gradient_error([&] { return joined(embedding->lookup(ids)); }, used_parameters(*embedding)) < kNumericError);
  }
}

TEST_CASE("the gradients of the float32 kernels are those of the float64 path") {
  torch::manual_seed(4);
  for (const auto& [name, options] : embedding_cases()) {
    INFO(name);
    Embedding embedding = random_embedding(options);
    const at::Tensor ids = random_ids(options, 400);
    if (used_parameters(*embedding).empty()) continue;
    const at::Tensor weights = torch::randn_like(joined(embedding->lookup(ids)).detach());
    const auto kernels = gradients(*embedding, ids, weights);
    embedding->to(at::kDouble);
    const auto exact = gradients(*embedding, ids, weights);
    REQUIRE(kernels.size() == exact.size());
    for (std::size_t i = 0; i < exact.size(); ++i) {
      CHECK(relative_error(kernels[i], exact[i]) < kGradientError);
      CHECK(relative_error(kernels[i], exact[i] * 1.001) > kGradientError);  // the bound can fail
    }
  }
}

TEST_CASE("values and gradients are the same for every number of threads") {
  torch::manual_seed(5);
  for (const auto& [name, options] : embedding_cases()) {
    INFO(name);
    Embedding embedding = random_embedding(options);
    const at::Tensor ids = random_ids(options, 300);
    if (used_parameters(*embedding).empty()) continue;
    const at::Tensor weights = torch::randn_like(joined(embedding->lookup(ids)).detach());
    const auto run = [&](int threads) {
      const ThreadCount guard(threads);
      auto all = gradients(*embedding, ids, weights);
      all.push_back(joined(embedding->lookup(ids)).detach());
      return all;
    };
    const auto one = run(1), two = run(2), three = run(3);
    for (std::size_t i = 0; i < one.size(); ++i) {
      CHECK(at::equal(one[i], two[i]));
      CHECK(at::equal(one[i], three[i]));
    }
  }
}

TEST_CASE("only what is used and wanted gets a gradient") {
  Embedding embedding = random_embedding({.cardinalities = {3, 4}, .embedding_dim = 2, .wide = true, .ranks = {1, 2}});
  const at::Tensor ids = torch::ones({5, 2}, at::kInt);
  embedding->lookup(ids).wide.sum().backward();
  CHECK(embedding->latent.grad().sum().item<float>() == 10.0F);  // one wide weight per row and field
  CHECK(embedding->basis.grad().abs().sum().item<float>() == 0.0F);

  embedding->zero_grad();
  embedding->latent.set_requires_grad(false);
  embedding->lookup(ids).values.sum().backward();
  CHECK_FALSE(embedding->latent.grad().defined());
  CHECK(embedding->offset.grad().eq(5).all().item<bool>());
}

TEST_CASE("the gradients of values and of joint wide weights add up, whichever is used") {
  torch::manual_seed(6);
  Embedding embedding =
      random_embedding({.cardinalities = {3, 4}, .embedding_dim = 2, .wide = true, .ranks = {1, 3}, .joint = true});
  const at::Tensor ids = torch::ones({5, 2}, at::kInt);
  const auto of = [&](const at::Tensor& loss) { return torch::autograd::grad({loss}, embedding->parameters()); };
  const auto values = of(embedding->lookup(ids).values.sum()), wide = of(embedding->lookup(ids).wide.sum());
  const EmbeddingOutput both = embedding->lookup(ids);
  const auto sum = of(both.values.sum() + both.wide.sum());
  for (std::size_t i = 0; i < sum.size(); ++i) {
    CHECK(relative_error(values[i] + wide[i], sum[i]) < kGradientError);
    CHECK(values[i].abs().max().item<float>() > 0.0F);
    CHECK(wide[i].abs().max().item<float>() > 0.0F);
  }
}

TEST_CASE("a second derivative of the float32 kernels is refused, not wrong") {
  Embedding embedding(EmbeddingOptions{.cardinalities = {3}});
  const at::Tensor loss = embedding->forward(torch::zeros({2, 1}, at::kInt)).square().sum();
  CHECK_THROWS_AS(torch::autograd::grad({loss}, {embedding->weight}, {}, true, /*create_graph=*/true), c10::Error);
}

}  // namespace
}  // namespace afm::nn
