#include <cmath>
#include <memory>
#include <tuple>

#include <torch/cuda.h>
#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers.hpp>

#include "libafm/nn/interaction.h"
#include "libafm/train/device_lazy_adam.h"
#include "libafm/train/missed_steps.h"

namespace afm {
namespace {

constexpr int kLazySteps = 220, kLazyBatch = 64;  // missed steps are taken at once when 128 are behind
constexpr double kLazyTolerance = 2e-5;

nn::Embedding lazy_embedding(int64_t dim) {
  return nn::Embedding(
      nn::EmbeddingOptions{.cardinalities = {2, 40, 300}, .embedding_dim = dim, .wide = true, .init_std = 0.3});
}

at::Tensor lazy_ids() {
  return at::stack({torch::randint(2, {kLazyBatch}), torch::randint(40, {kLazyBatch}),
                    (torch::rand({kLazyBatch}).pow(4) * 300).floor().to(torch::kLong)},
                   1)
      .to(torch::kInt32);
}

// Adam over the whole table in float64, as the papers write it.
struct DenseAdam {
  at::Tensor mean, square;
  double l2;
  int steps = 0;

  void step(const at::Tensor& table, double rate) {
    const torch::NoGradGuard no_grad;
    const at::Tensor gradient = table.grad() + l2 * table;
    if (!mean.defined()) std::tie(mean, square) = std::tuple(at::zeros_like(table), at::zeros_like(table));
    ++steps;
    mean.mul_(kAdamBeta1).add_(gradient, 1 - kAdamBeta1);
    square.mul_(kAdamBeta2).add_(gradient.square(), 1 - kAdamBeta2);
    const at::Tensor root = (square / (1 - std::pow(kAdamBeta2, steps))).sqrt_().add_(kAdamEpsilon);
    table.sub_(mean.div(root).mul_(rate / (1 - std::pow(kAdamBeta1, steps))));
  }
};

double lazy_difference(const at::Tensor& got, const at::Tensor& want) {
  return ((got.detach().cpu().to(at::kDouble) - want.detach()).norm() / want.detach().norm()).item<double>();
}

// A GPU's table under LazyAdam beside the same one in float64 under Adam.
class LazyPair {
 public:
  LazyPair(int64_t dim, double l2, bool deterministic = true)
      : gpu_(lazy_embedding(dim)),
        exact_(lazy_embedding(dim)),
        l2_(l2),
        deterministic_(deterministic),
        dense_{{}, {}, l2} {
    exact_->to(at::kDouble);
    const torch::NoGradGuard no_grad;
    exact_->weight.copy_(gpu_->weight);
    gpu_->to(at::kCUDA);
    lazy_ = device_lazy_adam(*gpu_, "weight", l2, deterministic);
  }
  bool exists() const { return lazy_ != nullptr; }

  // The largest difference between what the two lookups read.
  double step(double rate) {
    const at::Tensor ids = lazy_ids(), weights = torch::randn({kLazyBatch, 3 * gpu_->options.embedding_dim});
    lazy_->zero_grad();
    exact_->weight.mutable_grad() = at::Tensor();
    const auto features = gpu_->features(ids.cuda(), {}, true);
    ((features->input * weights.cuda()).sum() + features->score.square().sum()).backward();
    const nn::EmbeddingOutput output = exact_->lookup(ids);
    const at::Tensor score = output.wide + nn::factorization_machine(output.values);
    ((output.values.flatten(1) * weights.to(at::kDouble)).sum() + score.square().sum()).backward();
    const double apart = lazy_difference(features->input, output.values.flatten(1));
    lazy_->step(rate);
    dense_.step(exact_->weight, rate);
    return apart;
  }
  void start_anew_from_state() {
    const TensorMap state = lazy_->state();
    TensorMap copy;
    for (const auto& [name, tensor] : state) copy[name] = tensor.cpu().clone();
    lazy_.reset();
    lazy_ = device_lazy_adam(*gpu_, "weight", l2_, deterministic_);
    lazy_->load_state(copy, "the test");
  }
  double difference() {
    lazy_->flush();
    return lazy_difference(gpu_->weight, exact_->weight);
  }
  Optimizer& lazy() { return *lazy_; }
  nn::Embedding& gpu() { return gpu_; }

 private:
  nn::Embedding gpu_, exact_;
  double l2_;
  bool deterministic_;
  DenseAdam dense_;
  std::unique_ptr<Optimizer> lazy_;
};

}  // namespace

TEST_CASE("Adam at the cost of the rows that are read is dense Adam on a GPU, at every lookup and in the end",
          "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  torch::manual_seed(12);
  using Case = std::tuple<int64_t, double, bool>;
  const auto [dim, l2, deterministic] =
      GENERATE(Case(16, 0.0, true), Case(5, 0.0, true), Case(16, 0.01, true), Case(3, 0.0, true), Case(20, 0.01, true),
               Case(100, 0.0, true), Case(256, 0.0, true), Case(5, 0.0, false), Case(16, 0.01, false));
  LazyPair pair(dim, l2, deterministic);
  if (!pair.exists()) SKIP("a build without AFM_CUDA");
  const at::Tensor before = pair.gpu()->weight.detach().cpu().to(at::kDouble);
  for (int step = 1; step <= kLazySteps; ++step) {
    CAPTURE(step);
    REQUIRE(pair.step(step < 180 ? 1e-2 : 1e-3) < kLazyTolerance);
    if (step == 90) pair.lazy().flush();
    if (step == 170) pair.start_anew_from_state();
  }
  CHECK(pair.difference() < kLazyTolerance);
  CHECK(lazy_difference(pair.gpu()->weight, before) > 100 * kLazyTolerance);
  CHECK(pair.lazy().state().at("weight.step").item<double>() == kLazySteps);
  CHECK(pair.lazy().state().at("weight.rates").numel() == 0);
}

TEST_CASE("a state of rows that are behind other steps is refused on a GPU too", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  LazyPair pair(4, 0.0);
  if (!pair.exists()) SKIP("a build without AFM_CUDA");
  for (int step = 0; step < 3; ++step) pair.step(1e-3);
  TensorMap state = pair.lazy().state();
  state.at("weight.rows") = at::full_like(state.at("weight.rows"), 9);
  CHECK_THROWS_WITH(pair.lazy().load_state(state, "the file"), "the file has 'weight.rows' of other steps");
}

}  // namespace afm
