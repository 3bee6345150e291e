#include "libafm/compress/layer_refit.h"

#include <cmath>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "tests/linalg/random_layers.h"

namespace afm::testing {
namespace {

// A layer whose inputs lost something: rows [x~ | y] with y what the layer gives for x.
struct LossyLayer {
  Layer layer = random_layer(8, 10, 400);
  at::Tensor inputs = layer.inputs + 0.5 * randn({400, 10}) * layer.inputs.std() - 0.3 * layer.inputs.roll({1}, {1});
  Moments rows = moments_of(torch::cat({inputs, layer.outputs}, 1));

  AffineMap map() const { return {layer.weight, layer.bias}; }
  double error(const AffineMap& map, const at::Tensor& root) const {
    const at::Tensor got = torch::mm(inputs, map.weight.t()) + map.bias;
    return squared_error(torch::mm(got, root), torch::mm(layer.outputs, root));
  }
};

AffineMap map_of(const Factors& factors) {
  return {torch::mm(factors.up, factors.down), torch::mv(factors.up, factors.down_bias) + factors.up_bias};
}

TEST_CASE("the error from moments is that over the rows") {
  torch::manual_seed(GENERATE(range(0, 4)));
  const LossyLayer it;
  const at::Tensor unit = torch::eye(8, torch::kDouble), root = randn({8, 8});
  const OutputMetric metric = output_metric(torch::mm(root, root.t()));
  const double plain = it.error(it.map(), unit), measured = it.error(it.map(), metric.root);
  CHECK(std::abs(affine_error(it.rows, it.map()) - plain) < 1e-9 * plain);
  CHECK(std::abs(affine_error(it.rows, it.map(), metric) - measured) < 1e-9 * measured);
}

TEST_CASE("a refreshed bias gives the mean and is never worse") {
  torch::manual_seed(GENERATE(range(0, 4)));
  const LossyLayer it;
  const AffineMap refreshed = refresh_bias(it.rows, it.map());
  const at::Tensor got = torch::mm(it.inputs, refreshed.weight.t()) + refreshed.bias;
  CHECK(relative_error(got.mean(0), it.layer.outputs.mean(0)) < 1e-10);
  CHECK(affine_error(it.rows, refreshed) < affine_error(it.rows, it.map()));
}

TEST_CASE("a ridge refit is never worse than a refreshed bias, whatever the ridge, and without one the best of all") {
  torch::manual_seed(GENERATE(range(0, 6)));
  const LossyLayer it;
  double last = affine_error(it.rows, refresh_bias(it.rows, it.map()));
  for (const double ridge : {1e3, 1.0, 1e-2, 0.0}) {
    const double error = affine_error(it.rows, ridge_refit(it.rows, it.map(), ridge));
    CHECK(error <= last * (1.0 + 1e-12));
    last = error;
  }
  const AffineMap best = ridge_refit(it.rows, it.map(), 0.0);
  for (int trial = 0; trial < 5; ++trial) {
    const AffineMap moved{best.weight + 1e-3 * randn({8, 10}), best.bias + 1e-3 * randn({8})};
    CHECK(last < affine_error(it.rows, moved));
  }
}

TEST_CASE("a rank refit is never worse than the factors there were, in their metric, and keeps their rank") {
  torch::manual_seed(GENERATE(range(0, 6)));
  const LossyLayer it;
  const int64_t k = GENERATE(0, 1, 3, 6);
  const at::Tensor root = randn({8, 8});
  const OutputMetric metric = output_metric(torch::mm(root, root.t()));
  const AffineMap start = map_of(it.layer.mimic(k));
  const double before = affine_error(it.rows, start, metric);
  for (const double ridge : {10.0, 1e-2, 0.0}) {
    const Factors factors = rank_refit(it.rows, start, k, ridge, metric);
    CHECK(factors.down.size(0) == k);
    CHECK(affine_error(it.rows, map_of(factors), metric) <= before * (1.0 + 1e-12));
  }
}

// Izenman: the least error at rank k is tr(S_yy) less the k largest eigenvalues of S_yx S_xx^-1 S_xy.
TEST_CASE("without a ridge the rank refit reaches the bound of reduced-rank regression") {
  torch::manual_seed(GENERATE(range(0, 6)));
  const LossyLayer it;
  const at::Tensor covariance = it.rows.covariance();
  const at::Tensor xx = covariance.narrow(0, 0, 10).narrow(1, 0, 10), yx = covariance.narrow(0, 10, 8).narrow(1, 0, 10);
  const Spectrum fitted = spectrum_of(torch::mm(yx, torch::linalg_solve(xx, yx.t())));
  const double all = covariance.narrow(0, 10, 8).narrow(1, 10, 8).diagonal().sum().item<double>();
  for (const int64_t k : {1, 4, 8}) {
    const double bound = all - fitted.total() + fitted.discarded(k);
    const Factors factors = rank_refit(it.rows, map_of(it.layer.mimic(k)), k, 0.0, {});
    CHECK(std::abs(affine_error(it.rows, map_of(factors)) - bound) < 1e-8 * all);
  }
}

TEST_CASE("inputs that never vary leave the weights and give the mean") {
  torch::manual_seed(3);
  const at::Tensor outputs = randn({50, 3});
  const Moments rows = moments_of(torch::cat({torch::ones({50, 4}, torch::kDouble), outputs}, 1));
  const AffineMap start{randn({3, 4}), randn({3})};
  const AffineMap refitted = ridge_refit(rows, start, 0.0);
  CHECK(at::equal(refitted.weight, start.weight));
  CHECK(relative_error(refitted.weight.sum(1) + refitted.bias, outputs.mean(0)) < 1e-12);
}

TEST_CASE("the calibration of a logit finds the scale and shift that it lacks") {
  torch::manual_seed(GENERATE(range(0, 4)));
  const at::Tensor rest = randn({2000}), part = 2.0 * randn({2000}) + 1.0;
  const LogitScale found = calibrate_logit(rest, part, rest + 0.4 * part - 1.5);
  CHECK(std::abs(found.scale - 0.4) < 1e-6);
  CHECK(std::abs(found.shift + 1.5) < 1e-6);
}

TEST_CASE("the calibration of a logit is never worse than none, and leaves what is right alone") {
  torch::manual_seed(GENERATE(range(0, 4)));
  const at::Tensor rest = randn({500}), part = randn({500}), target = 3.0 * randn({500});
  const auto loss = [&](const LogitScale& scale) {
    const at::Tensor s = rest + scale.scale * part + scale.shift;
    return (at::softplus(s) - target.sigmoid() * s).mean().item<double>();
  };
  CHECK(loss(calibrate_logit(rest, part, target)) <= loss({}));
  const LogitScale same = calibrate_logit(rest, part, rest + part);
  CHECK(std::abs(same.scale - 1.0) < 1e-9);
  CHECK(std::abs(same.shift) < 1e-9);
  const LogitScale constant = calibrate_logit(rest, torch::zeros({500}, torch::kDouble), target);
  CHECK(loss(constant) <= loss({}));
}

}  // namespace
}  // namespace afm::testing
