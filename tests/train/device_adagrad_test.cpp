#include <array>
#include <random>
#include <utility>
#include <vector>

#include <torch/cuda.h>
#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/nn/interaction.h"
#include "libafm/train/device_adagrad.h"
#include "libafm/train/row_adagrad.h"

namespace afm {
namespace {

constexpr double kAdagradTolerance = 1e-5, kAdagradL2 = 0.01, kAdagradScale = 20.0, kAdagradRate = 1e-3;

nn::Embedding adagrad_embedding() {
  return nn::Embedding(
      nn::EmbeddingOptions{.cardinalities = {2, 40, 5000}, .embedding_dim = 16, .wide = true, .init_std = 0.3});
}

at::Tensor adagrad_loss(const at::Tensor& input, const at::Tensor& score, const at::Tensor& weights) {
  return (input * weights.to(input.device())).sum() + score.square().sum();
}

double adagrad_difference(const at::Tensor& got, const at::Tensor& want) {
  return ((got.cpu() - want).norm() / want.norm()).item<double>();
}

}  // namespace

TEST_CASE("row-wise Adagrad fused on a GPU takes the steps of the CPU", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  torch::manual_seed(4);
  nn::Embedding cpu = adagrad_embedding(), gpu = adagrad_embedding();
  {
    const torch::NoGradGuard no_grad;
    gpu->weight.copy_(cpu->weight);
  }
  gpu->to(at::kCUDA);
  const at::Tensor start = cpu->weight.detach().clone();
  const auto [reads_rate, deterministic] =
      GENERATE(std::pair(false, true), std::pair(true, true), std::pair(true, false));
  const auto on_gpu = device_adagrad(*gpu, "weight", kAdagradL2, kAdagradScale, deterministic);
  if (!on_gpu) SKIP("a build without AFM_CUDA");
  RowAdagrad on_cpu(*cpu, "weight", kAdagradL2, kAdagradScale);
  const at::Tensor rate = torch::full({1}, kAdagradRate, torch::kFloat32).cuda();
  if (reads_rate) REQUIRE(on_gpu->read_rate_from(rate));
  for (int step = 0; step < 6; ++step) {
    const at::Tensor weights = torch::randn({3000, 48});
    const at::Tensor ids = at::stack({torch::randint(2, {3000}), torch::randint(40, {3000}),
                                      (torch::rand({3000}).pow(3) * 5000).floor().to(torch::kLong)},
                                     1)
                               .to(torch::kInt32);
    on_cpu.zero_grad();
    on_gpu->zero_grad();
    const nn::EmbeddingOutput output = cpu->lookup(ids);
    adagrad_loss(output.values.flatten(1), output.wide + nn::factorization_machine(output.values), weights).backward();
    const auto features = gpu->features(ids.cuda(), {}, true);
    REQUIRE(features.has_value());
    adagrad_loss(features->input, features->score, weights).backward();
    CHECK_FALSE(gpu->weight.grad().defined());
    on_cpu.step(kAdagradRate);
    on_gpu->step(reads_rate ? 1e9 : kAdagradRate);  // which a given rate overrides
  }
  CHECK(adagrad_difference(gpu->weight.detach(), cpu->weight.detach()) < kAdagradTolerance);
  CHECK(adagrad_difference(gpu->weight.detach(), start) > 100 * kAdagradTolerance);
  CHECK(adagrad_difference(on_gpu->state().at("weight.sum"), on_cpu.state().at("weight.sum")) < kAdagradTolerance);
}

TEST_CASE("steps fused on a GPU, by atomics or not, are those of float64, whatever the shape, and leave nothing behind",
          "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  const bool deterministic = GENERATE(false, true);
  torch::manual_seed(7);
  std::mt19937 random(11);
  const auto below = [&](int64_t end) { return static_cast<int64_t>(random() % static_cast<uint64_t>(end)); };
  constexpr std::array<int64_t, 12> kDims{1, 3, 4, 7, 10, 16, 17, 32, 40, 64, 100, 256};
  constexpr std::array<int64_t, 6> kBatches{1, 2, 31, 257, 2048, 20000};
  for (std::size_t trial = 0; trial < 36; ++trial) {
    const int64_t dim = kDims[trial % 12], batch = kBatches[static_cast<std::size_t>(below(6))];
    nn::EmbeddingOptions options{.embedding_dim = dim, .wide = trial % 2 == 0, .init_std = 0.5};
    const int64_t fields = 1 + below(dim > 64 || batch > 5000 ? 4 : 45);
    for (int64_t f = 0; f < fields; ++f) options.cardinalities.push_back(1 + below(f % 3 == 0 ? 3 : 3000));
    CAPTURE(deterministic, options.cardinalities, dim, batch, options.wide);
    nn::Embedding exact(options), gpu(options);
    exact->to(at::kDouble);
    {
      const torch::NoGradGuard no_grad;
      exact->weight.copy_(gpu->weight);
    }
    gpu->to(at::kCUDA);
    const auto on_gpu = device_adagrad(*gpu, "weight", 0, 1, deterministic);
    if (!on_gpu) SKIP("a build without AFM_CUDA");
    at::Tensor squares = torch::zeros({exact->weight.size(0)}, torch::kDouble);
    for (int step = 0; step < 3; ++step) {  // in slots that were used before
      std::vector<at::Tensor> columns;
      for (const int64_t size : options.cardinalities) {
        columns.push_back((torch::rand({batch}, torch::kDouble).pow(4) * size).floor().clamp_max(size - 1));
      }
      const at::Tensor ids = at::stack(columns, 1).to(torch::kInt32);
      const at::Tensor weights = torch::randn({batch, fields * dim}), shares = torch::randn({batch});
      on_gpu->zero_grad();
      const auto features = gpu->features(ids.cuda(), {}, /*interaction=*/true);
      ((features->input * weights.cuda()).sum() + (features->score * shares.cuda()).sum()).backward();
      on_gpu->step(kAdagradRate);

      const nn::EmbeddingOutput output = exact->lookup(ids);
      const at::Tensor loss = (output.values.flatten(1) * weights.to(torch::kDouble)).sum() +
                              (nn::factorization_machine(output.values) * shares.to(torch::kDouble)).sum();
      const at::Tensor gradient = torch::autograd::grad({loss}, {exact->weight})[0].narrow(1, 0, dim);
      const torch::NoGradGuard no_grad;
      squares += gradient.square().mean(1);
      exact->weight.narrow(1, 0, dim).sub_(kAdagradRate * gradient / (squares.sqrt() + 1e-8).unsqueeze(1));
      const at::Tensor got = on_gpu->state().at("weight.sum").select(1, 0);
      CHECK(adagrad_difference(got.to(torch::kDouble), squares) < kAdagradTolerance);
      CHECK(adagrad_difference(got.to(torch::kDouble), squares * 1.001) > kAdagradTolerance);  // the bound can fail
    }
    const at::Tensor values = gpu->weight.detach().narrow(1, 0, dim).to(torch::kDouble);
    CHECK(adagrad_difference(values, exact->weight.detach().narrow(1, 0, dim)) < kAdagradTolerance);
  }
}

TEST_CASE("two lookups in one step are one sum on a GPU", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  const bool deterministic = GENERATE(true, false);
  torch::manual_seed(5);
  nn::Embedding once = adagrad_embedding(), twice = adagrad_embedding();
  {
    const torch::NoGradGuard no_grad;
    twice->weight.copy_(once->weight);
  }
  once->to(at::kCUDA);
  twice->to(at::kCUDA);
  const auto one = device_adagrad(*once, "weight", 0, 1, deterministic);
  const auto two = device_adagrad(*twice, "weight", 0, 1, deterministic);
  if (!one) SKIP("a build without AFM_CUDA");
  const at::Tensor ids = torch::randint(2, {64, 3}, torch::kInt32).cuda(), weights = torch::randn({64, 48}).cuda();
  const auto loss = [&](nn::Embedding& embedding, const at::Tensor& rows, const at::Tensor& share) {
    const auto features = embedding->features(rows, {}, false);
    return (features->input * share).sum() + features->score.sum();
  };
  loss(once, ids, weights).backward();
  (loss(twice, ids.narrow(0, 0, 32), weights.narrow(0, 0, 32)) +
   loss(twice, ids.narrow(0, 32, 32), weights.narrow(0, 32, 32)))
      .backward();
  one->step(kAdagradRate);
  two->step(kAdagradRate);
  CHECK(adagrad_difference(twice->weight.detach(), once->weight.detach().cpu()) < kAdagradTolerance);
}

}  // namespace afm
