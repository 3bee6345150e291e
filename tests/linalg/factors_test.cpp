#include "libafm/linalg/factors.h"

#include <algorithm>
#include <cmath>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

#include "tests/linalg/random_layers.h"

using Catch::Matchers::Message;

namespace afm::testing {

constexpr double kFactorRounding = 1e-12;

// Theorem 1 holds exactly on the calibration sample; what the solver rounds is relative to the whole variance.
bool reaches_bound(const Layer& layer, int64_t k) {
  const double bound = layer.spectrum.discarded(k);
  const double error = squared_error(apply(layer.mimic(k), layer.inputs), layer.outputs);
  return std::abs(error - bound) <= 1e-9 * bound + 1e-13 * layer.outputs.square().sum().item<double>();
}

TEST_CASE("factors of full rank reproduce the layer on any input") {
  torch::manual_seed(GENERATE(range(0, 10)));
  const Layer layer = random_layer();
  const Factors factors = layer.mimic(layer.weight.size(0));
  const at::Tensor unseen = 10.0 * randn({50, layer.weight.size(1)}) - 3.0;
  CHECK(relative_error(apply(factors, unseen), at::mm(unseen, layer.weight.t()) + layer.bias) < kFactorRounding);
}

TEST_CASE("the mean squared error at every rank is the sum of the discarded eigenvalues") {
  torch::manual_seed(GENERATE(range(0, 10)));
  const Layer layer = random_layer();
  for (int64_t k = 0; k <= layer.weight.size(0); ++k) CHECK(reaches_bound(layer, k));
}

TEST_CASE("well above round-off, error and discarded eigenvalues agree to nine digits") {
  torch::manual_seed(GENERATE(range(0, 5)));
  const Layer layer = layer_on(randn({16, 20}), randn({16}), correlated_rows(500, 20, 2.0, 0.95));
  for (int64_t k = 0; k < 12; ++k) {
    const double bound = layer.spectrum.discarded(k);
    CHECK(std::abs(squared_error(apply(layer.mimic(k), layer.inputs), layer.outputs) - bound) <= 1e-9 * bound);
  }
}

TEST_CASE("the mean of the outputs is preserved at every rank, the columns of up are orthonormal") {
  torch::manual_seed(GENERATE(range(0, 5)));
  const Layer layer = random_layer();
  for (int64_t k = 0; k <= layer.weight.size(0); ++k) {
    const Factors factors = layer.mimic(k);
    CHECK(relative_error(apply(factors, layer.inputs).mean(0), layer.outputs.mean(0)) < 1e-11);
    const at::Tensor gram = at::mm(factors.up.t(), factors.up);
    CHECK((gram - torch::eye(k, torch::kDouble)).abs().sum().item<double>() < kFactorRounding * 100);
  }
}

TEST_CASE("no weight-SVD and no perturbed pair of the same rank comes below the factors") {
  torch::manual_seed(GENERATE(range(0, 20)));
  const int64_t m = random_size(3, 20), n = random_size(3, 20), k = random_size(1, std::min(m, n) - 1);
  const Layer layer = random_layer(m, n, 300);
  const at::Tensor input_mean = layer.inputs.mean(0);
  const auto error_of = [&](const Factors& factors) {
    return squared_error(apply(factors, layer.inputs), layer.outputs);
  };
  const double mimicked = error_of(layer.mimic(k));
  const double best_bias = error_of(truncate_weight(layer.weight, layer.bias, input_mean, k));
  const double kept_bias = error_of(truncate_weight(layer.weight, layer.bias, {}, k));
  CHECK(mimicked < best_bias);
  CHECK(best_bias < kept_bias);

  for (int trial = 0; trial < 10; ++trial) {
    Factors moved = layer.mimic(k);
    moved.down += 1e-2 * randn({k, n});
    moved.up += 1e-2 * randn({m, k});
    moved.up_bias += (layer.outputs - apply(moved, layer.inputs)).mean(0);  // the best bias for it
    CHECK(mimicked < error_of(moved));
  }
}

TEST_CASE("a layer without bias is one with a zero bias") {
  torch::manual_seed(2);
  const Layer layer = layer_on(randn({5, 7}), torch::zeros({5}, torch::kDouble), correlated_rows(100, 7));
  const Factors with = layer.mimic(3);
  const Factors without = mimic_output(layer.weight, {}, layer.moments.mean(), layer.spectrum, 3);
  CHECK(at::equal(with.down_bias, without.down_bias));
  CHECK(at::equal(with.up_bias, without.up_bias));
}

TEST_CASE("rank 0 is the constant mean") {
  torch::manual_seed(3);
  const Layer layer = random_layer(6, 4, 50);
  const Factors factors = layer.mimic(0);
  CHECK(factors.down.sizes() == at::IntArrayRef({0, 4}));
  CHECK(factors.up.sizes() == at::IntArrayRef({6, 0}));
  CHECK(at::equal(apply(factors, layer.inputs), layer.moments.mean().expand({50, 6})));
}

TEST_CASE("outputs of rank one, and layers wider than their input, are exact at their numerical rank") {
  torch::manual_seed(4);
  const Layer one = layer_on(at::outer(randn({8}), randn({5})), randn({8}), correlated_rows(100, 5));
  CHECK(one.spectrum.rank == 1);
  CHECK(relative_error(apply(one.mimic(1), one.inputs), one.outputs) < kFactorRounding);
  const Layer wide = random_layer(20, 6, 200);
  CHECK(wide.spectrum.rank == 6);
  CHECK(relative_error(apply(wide.mimic(6), wide.inputs), wide.outputs) < kFactorRounding);
}

TEST_CASE("a cut inside repeated eigenvalues costs what it must, whichever vectors were chosen") {
  torch::manual_seed(5);
  const at::Tensor data = randn({200, 6});
  const at::Tensor white = std::get<0>(at::linalg_qr(data - data.mean(0))) * std::sqrt(200.0);
  const Layer layer = layer_on(torch::eye(6, torch::kDouble), randn({6}), white);
  for (int64_t k = 0; k <= 6; ++k) {
    CHECK(std::abs(layer.spectrum.discarded(k) - static_cast<double>(6 - k)) < 1e-10);
    CHECK(reaches_bound(layer, k));
  }
}

TEST_CASE("one row and constant outputs are reproduced by their mean") {
  torch::manual_seed(6);
  const Layer single = random_layer(5, 3, 1);
  const Layer constant = layer_on(torch::zeros({5, 3}, torch::kDouble), randn({5}), randn({40, 3}));
  for (int64_t k = 0; k <= 5; ++k) {
    CHECK(relative_error(apply(single.mimic(k), single.inputs), single.outputs) < kFactorRounding);
    CHECK(relative_error(apply(constant.mimic(k), constant.inputs), constant.outputs) < kFactorRounding);
  }
  CHECK(single.spectrum.rank == 0);
  CHECK(constant.spectrum.rank == 0);
}

TEST_CASE("a mean ten thousand times the spread does not spoil the factors") {
  torch::manual_seed(7);
  const Layer layer = layer_on(randn({6, 8}), 1e4 * randn({6}), correlated_rows(300, 8, 0.0));
  for (int64_t k = 0; k < 6; ++k) {
    const double bound = layer.spectrum.discarded(k);
    CHECK(std::abs(squared_error(apply(layer.mimic(k), layer.inputs), layer.outputs) - bound) <= 1e-9 * bound);
  }
}

TEST_CASE("denormal weights give finite factors that reproduce the layer") {
  torch::manual_seed(8);
  const Layer layer = layer_on(1e-310 * randn({4, 4}), torch::zeros({4}, torch::kDouble), randn({50, 4}));
  const at::Tensor outputs = apply(layer.mimic(4), layer.inputs);
  CHECK(relative_error(outputs * 1e300, layer.outputs * 1e300) < 1e-9);
}

TEST_CASE("float32 weights give float32 factors whose outputs agree to float32 rounding") {
  torch::manual_seed(GENERATE(range(0, 5)));
  const Layer layer = random_layer(30, 40, 500);
  const at::Tensor weight = layer.weight.to(at::kFloat), bias = layer.bias.to(at::kFloat);
  const at::Tensor inputs = layer.inputs.to(at::kFloat);
  const Factors exact =
      mimic_output(weight.to(at::kDouble), bias.to(at::kDouble), layer.moments.mean(), layer.spectrum, 9);
  const Factors rounded = mimic_output(weight, bias, layer.moments.mean(), layer.spectrum, 9);
  CHECK(rounded.down.dtype() == torch::kFloat);
  CHECK(rounded.up_bias.dtype() == torch::kFloat);
  CHECK(relative_error(apply(rounded, inputs), apply(exact, inputs.to(at::kDouble))) < 1e-6);
  const Factors full = mimic_output(weight, bias, layer.moments.mean(), layer.spectrum, 30);
  CHECK(relative_error(apply(full, inputs), (at::mm(inputs, weight.t()) + bias).to(at::kDouble)) < 2e-6);
}

TEST_CASE("factors are tensors of their own, contiguous and without gradients") {
  torch::manual_seed(9);
  Layer layer = random_layer(4, 5, 50);
  layer.weight.requires_grad_();
  const at::Tensor vectors = layer.spectrum.vectors.clone();
  Factors factors = layer.mimic(4);
  CHECK(factors.up.is_contiguous());
  CHECK(factors.down.is_contiguous());
  CHECK_FALSE(factors.down.requires_grad());
  factors.up.zero_();
  CHECK(at::equal(layer.spectrum.vectors, vectors));
}

TEST_CASE("mimicking refuses a rank, mean or spectrum that does not fit") {
  torch::manual_seed(10);
  const Layer layer = random_layer(4, 5, 50);
  CHECK_THROWS_MATCHES(layer.mimic(5), std::invalid_argument, Message("mimic_output: k must be in [0, 4], got 5"));
  CHECK_THROWS_MATCHES(mimic_output(layer.weight, layer.bias, randn({3}), layer.spectrum, 2), std::invalid_argument,
                       Message("mimic_output: mean must be floating point of shape [4], got Double [3]"));
  CHECK_THROWS_MATCHES(mimic_output(layer.weight, randn({5}), randn({4}), layer.spectrum, 2), std::invalid_argument,
                       Message("mimic_output: bias must be floating point of shape [4], got Double [5]"));
  CHECK_THROWS_MATCHES(
      mimic_output(layer.weight, {}, randn({4}), spectrum_of(torch::eye(3)), 2), std::invalid_argument,
      Message("mimic_output: spectrum.vectors must be floating point of shape [4, 4], got Double [3, 3]"));
  CHECK_THROWS_MATCHES(mimic_output(layer.weight / 0.0, {}, randn({4}), layer.spectrum, 2), std::invalid_argument,
                       Message("mimic_output: weight must be finite, got a NaN or an infinity"));
}

}  // namespace afm::testing
