#include <cmath>
#include <limits>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

#include "tests/linalg/random_layers.h"

using Catch::Matchers::Message;

namespace afm::testing {

// A positive semidefinite matrix whose eigenvalues fall by half each, the last ones zero.
at::Tensor random_gauss_newton(int64_t m) {
  const at::Tensor directions = std::get<0>(at::linalg_qr(randn({m, m})));
  const at::Tensor values = torch::pow(0.5, torch::arange(m, torch::kDouble)) * torch::arange(m).lt((m + 1) / 2);
  return at::mm(directions * values, directions.t());
}

double error_in(const OutputMetric& metric, const at::Tensor& got, const at::Tensor& wanted) {
  return squared_error(at::mm(got, metric.root), at::mm(wanted, metric.root));
}

struct MeasuredLayer {
  Layer layer = random_layer();
  OutputMetric metric = output_metric(random_gauss_newton(layer.weight.size(0)));
  Spectrum spectrum = spectrum_in(metric, layer.moments.covariance());

  Factors mimic(int64_t k) const {
    return mimic_output(layer.weight, layer.bias, layer.moments.mean(), spectrum, k, metric);
  }
};

TEST_CASE("the metric's root and inverse are what they say") {
  torch::manual_seed(GENERATE(range(0, 5)));
  const int64_t m = random_size(1, 20);
  const at::Tensor gauss_newton = random_gauss_newton(m);
  const double mean = gauss_newton.diagonal().sum().item<double>() / static_cast<double>(m);
  const OutputMetric metric = output_metric(gauss_newton, 0.05);
  const at::Tensor unit = torch::eye(m, torch::kDouble);
  CHECK(relative_error(metric.squared(), 0.95 * gauss_newton + 0.05 * mean * unit) < 1e-12);
  CHECK(relative_error(at::mm(metric.root, metric.inverse), unit) < 1e-11);
}

TEST_CASE("in a metric the error at every rank is the sum of the discarded eigenvalues") {
  torch::manual_seed(GENERATE(range(0, 10)));
  const MeasuredLayer it;
  for (int64_t k = 0; k <= it.layer.weight.size(0); ++k) {
    const Factors factors = it.mimic(k);
    const double bound = it.spectrum.discarded(k);
    const double error = error_in(it.metric, apply(factors, it.layer.inputs), it.layer.outputs);
    CHECK(std::abs(error - bound) <= 1e-9 * bound + 1e-13 * it.layer.outputs.square().sum().item<double>());
    const at::Tensor gram = at::mm(factors.up.t(), factors.up);
    CHECK((gram - torch::eye(k, torch::kDouble)).abs().sum().item<double>() < 1e-10);
    CHECK(relative_error(apply(factors, it.layer.inputs).mean(0), it.layer.outputs.mean(0)) < 1e-9);
  }
}

TEST_CASE("in their metric no other factors of the rank are better, plain ones are worse") {
  torch::manual_seed(GENERATE(range(0, 10)));
  const Layer layer = random_layer(12, 15, 300);
  const OutputMetric metric = output_metric(random_gauss_newton(12));
  const Spectrum spectrum = spectrum_in(metric, layer.moments.covariance());
  const Factors best = mimic_output(layer.weight, layer.bias, layer.moments.mean(), spectrum, 4, metric);
  const auto error_of = [&](const Factors& factors) {
    return error_in(metric, apply(factors, layer.inputs), layer.outputs);
  };
  CHECK(error_of(best) < error_of(layer.mimic(4)));
  for (int trial = 0; trial < 10; ++trial) {
    Factors moved = best;
    moved.down = moved.down + 1e-2 * randn({4, 15});
    moved.up = moved.up + 1e-2 * randn({12, 4});
    moved.up_bias = moved.up_bias + (layer.outputs - apply(moved, layer.inputs)).mean(0);
    CHECK(error_of(best) < error_of(moved));
  }
}

TEST_CASE("eps of 1 is mimicking in the plain norm") {
  torch::manual_seed(GENERATE(range(0, 5)));
  const Layer layer = random_layer(10, 12, 200);
  const OutputMetric metric = output_metric(random_gauss_newton(10), 1.0);
  const Spectrum spectrum = spectrum_in(metric, layer.moments.covariance());
  for (const int64_t k : {0, 3, 10}) {
    const Factors factors = mimic_output(layer.weight, layer.bias, layer.moments.mean(), spectrum, k, metric);
    CHECK(relative_error(apply(factors, layer.inputs), apply(layer.mimic(k), layer.inputs)) < 1e-9);
  }
}

TEST_CASE("without a metric the factors are bit for bit those of the plain norm") {
  torch::manual_seed(3);
  const Layer layer = random_layer(9, 7, 100);
  const at::Tensor basis = layer.spectrum.vectors.narrow(1, 0, 4);
  const Factors factors = layer.mimic(4);
  CHECK(at::equal(factors.down, at::mm(basis.t(), layer.weight)));
  CHECK(at::equal(factors.up, basis));
  CHECK(at::equal(factors.down_bias, at::mv(basis.t(), layer.bias)));
  const at::Tensor mean = layer.moments.mean();
  CHECK(at::equal(factors.up_bias, mean - at::mv(basis, at::mv(basis.t(), mean))));
  CHECK(at::equal(mimic_reader(layer.spectrum, 4), basis.t()));
}

TEST_CASE("the reader gives the latent from the output") {
  torch::manual_seed(4);
  const MeasuredLayer it;
  const int64_t k = it.layer.weight.size(0) / 2;
  const Factors factors = it.mimic(k);
  CHECK(relative_error(at::mm(mimic_reader(it.spectrum, k, it.metric), it.layer.weight), factors.down) < 1e-11);
}

TEST_CASE("a table in a metric has the predicted error, an orthonormal basis that lower ranks begin, and its mean") {
  torch::manual_seed(GENERATE(range(0, 10)));
  const int64_t dim = random_size(1, 12);
  const at::Tensor rows = correlated_rows(random_size(2, 150), dim);
  const at::Tensor counts = torch::randint(1, 50, {rows.size(0)}, torch::kLong);
  Moments moments(dim);
  moments.add_weighted(rows, counts);
  const OutputMetric metric = output_metric(random_gauss_newton(dim));
  const Spectrum spectrum = spectrum_in(metric, moments.covariance());
  const at::Tensor full = mimic_table(rows, moments.mean(), spectrum, dim, metric).basis;
  for (int64_t k = 0; k <= dim; ++k) {
    const TableFactors factors = mimic_table(rows, moments.mean(), spectrum, k, metric);
    const at::Tensor lost = at::mm(at::mm(factors.latent, factors.basis) + factors.offset - rows, metric.root);
    const double error = (lost.square().sum(1) * counts).sum().item<double>() / moments.count();
    const double bound = spectrum.discarded(k);
    CHECK(std::abs(error - bound) <= 1e-9 * bound + 1e-13 * rows.square().sum().item<double>());
    CHECK((at::mm(factors.basis, factors.basis.t()) - torch::eye(k, torch::kDouble)).abs().sum().item<double>() <
          1e-10);
    CHECK(at::mv(factors.basis, factors.offset).abs().sum().item<double>() < 1e-10);
    CHECK((factors.basis - full.narrow(0, 0, k)).abs().sum().item<double>() < 1e-9);
    // The row that is the mean is kept.
    const TableFactors of_mean = mimic_table(moments.mean().unsqueeze(0), moments.mean(), spectrum, k, metric);
    const at::Tensor kept = at::mm(of_mean.latent, of_mean.basis) + of_mean.offset;
    CHECK(relative_error(kept.squeeze(0), moments.mean()) < 1e-10);
  }
}

// s = u'y with y = W x + b and u independent of y: the Gauss-Newton matrix of y is E[p (1 - p) u u'].
TEST_CASE("half of the discarded eigenvalues is the KL divergence of a logistic head to 10 percent") {
  torch::manual_seed(GENERATE(range(0, 6)));
  const int64_t rows = 20000, m = 8;
  const Layer layer = layer_on(randn({m, 10}) / 3.0, randn({m}), correlated_rows(rows, 10, 1.0));
  const at::Tensor reader =
      randn({rows, m}) * torch::pow(0.7, torch::arange(m, torch::kDouble)) * 0.3 + 0.2 * randn({m});
  const at::Tensor s = (reader * layer.outputs).sum(1), p = s.sigmoid();
  const at::Tensor g = reader * (p * (1.0 - p)).sqrt().unsqueeze(1);
  const OutputMetric metric = output_metric(at::mm(g.t(), g) / rows, 1e-3);
  const Spectrum spectrum = spectrum_in(metric, layer.moments.covariance());
  const auto kl_of = [&](const Factors& factors) {
    const at::Tensor t = (reader * apply(factors, layer.inputs)).sum(1);
    const auto term = [](const at::Tensor& a, const at::Tensor& b) {
      return a.sigmoid() * (at::log_sigmoid(a) - at::log_sigmoid(b));
    };
    return (term(s, t) + term(-s, -t)).mean().item<double>();
  };
  for (const int64_t k : {2, 3, 4}) {
    const double predicted = 0.5 * spectrum.discarded(k);
    const double measured = kl_of(mimic_output(layer.weight, layer.bias, layer.moments.mean(), spectrum, k, metric));
    CHECK(std::abs(predicted - measured) < 0.1 * measured);
    CHECK(measured < kl_of(layer.mimic(k)));
  }
}

TEST_CASE("a metric of zero changes nothing but the scale") {
  torch::manual_seed(5);
  const Layer layer = random_layer(6, 6, 100);
  const OutputMetric none = output_metric(torch::zeros({6, 6}, torch::kDouble));
  const Spectrum spectrum = spectrum_in(none, layer.moments.covariance());
  CHECK(spectrum.total() < 1e-50);
  const Factors factors = mimic_output(layer.weight, layer.bias, layer.moments.mean(), spectrum, 3, none);
  CHECK(relative_error(apply(factors, layer.inputs), apply(layer.mimic(3), layer.inputs)) < 1e-8);
}

TEST_CASE("metrics that cannot be are refused") {
  const at::Tensor unit = torch::eye(3, torch::kDouble);
  CHECK_THROWS_MATCHES(output_metric(unit, 0.0), std::invalid_argument,
                       Message("output_metric: eps must be in (0, 1], got 0"));
  CHECK_THROWS_MATCHES(output_metric(unit, std::numeric_limits<double>::quiet_NaN()), std::invalid_argument,
                       Message("output_metric: eps must be in (0, 1], got nan"));
  CHECK_THROWS_AS(output_metric(torch::ones({2, 3})), std::invalid_argument);
  CHECK_THROWS_MATCHES(spectrum_in(output_metric(unit), torch::eye(4)), std::invalid_argument,
                       Message("spectrum_in: covariance must be floating point of shape [3, 3], got Float [4, 4]"));
  const Layer layer = random_layer(4, 5, 50);
  CHECK_THROWS_MATCHES(
      mimic_output(layer.weight, layer.bias, layer.moments.mean(), layer.spectrum, 2, output_metric(unit)),
      std::invalid_argument, Message("mimic_output: metric must be floating point of shape [4, 4], got Double [3, 3]"));
}

}  // namespace afm::testing
