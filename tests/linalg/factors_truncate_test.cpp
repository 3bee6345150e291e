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

constexpr double kTruncateRounding = 1e-12;

at::Tensor product(const Factors& factors) { return at::mm(factors.up, factors.down); }

TEST_CASE("the truncated weight is the nearest of its rank: its error is the discarded singular values") {
  torch::manual_seed(GENERATE(range(0, 10)));
  const at::Tensor weight = randn({random_size(1, 30), random_size(1, 30)});
  const at::Tensor singular = at::linalg_svdvals(weight);
  for (int64_t k = 0; k <= singular.size(0); ++k) {
    const Factors factors = truncate_weight(weight, {}, {}, k);
    const double wanted = singular.narrow(0, k, singular.size(0) - k).square().sum().item<double>();
    const double scale = singular.square().sum().item<double>();
    CHECK(std::abs((weight - product(factors)).square().sum().item<double>() - wanted) < kTruncateRounding * scale);
    CHECK(relative_error(factors.down.square().sum(1), singular.narrow(0, 0, k)) < 1e-10);
    CHECK(relative_error(factors.up.square().sum(0), singular.narrow(0, 0, k)) < 1e-10);
    CHECK(factors.down_bias.count_nonzero().item<int64_t>() == 0);
  }
}

TEST_CASE("singular values far below the square root of epsilon survive") {
  torch::manual_seed(3);
  const at::Tensor left = std::get<0>(at::linalg_qr(randn({6, 6}))), right = std::get<0>(at::linalg_qr(randn({6, 6})));
  const at::Tensor singular = torch::tensor({1.0, 1e-3, 1e-6, 1e-9, 1e-11, 1e-12}, torch::kDouble);
  const Factors factors = truncate_weight(at::mm(left * singular, right.t()), {}, {}, 6);
  CHECK((factors.up.square().sum(0) / singular - 1.0).abs().max().item<double>() < 1e-3);
}

TEST_CASE("without an input mean the bias is kept, with one the mean output is preserved") {
  torch::manual_seed(GENERATE(range(0, 5)));
  const Layer layer = random_layer(8, 10, 200);
  const Factors kept = truncate_weight(layer.weight, layer.bias, {}, 3);
  const Factors best = truncate_weight(layer.weight, layer.bias, layer.inputs.mean(0), 3);
  CHECK(at::equal(kept.up_bias, layer.bias));
  CHECK(at::equal(kept.down, best.down));
  CHECK(relative_error(apply(best, layer.inputs).mean(0), layer.outputs.mean(0)) < kTruncateRounding);
  CHECK(relative_error(apply(kept, layer.inputs).mean(0), layer.outputs.mean(0)) > 1e-3);
}

TEST_CASE("the best bias is better than every other") {
  torch::manual_seed(4);
  const Layer layer = random_layer(8, 10, 200);
  Factors factors = truncate_weight(layer.weight, layer.bias, layer.inputs.mean(0), 3);
  const double best = squared_error(apply(factors, layer.inputs), layer.outputs);
  const at::Tensor bias = factors.up_bias.clone();
  for (int trial = 0; trial < 20; ++trial) {
    factors.up_bias = bias + 1e-3 * randn({8});
    CHECK(best < squared_error(apply(factors, layer.inputs), layer.outputs));
  }
}

TEST_CASE("truncation is exact at full rank, and at the rank of a weight of rank one or zero") {
  torch::manual_seed(5);
  const at::Tensor tall = randn({9, 4}), one = at::outer(randn({5}), randn({6}));
  CHECK(relative_error(product(truncate_weight(tall, {}, {}, 4)), tall) < kTruncateRounding);
  CHECK(relative_error(product(truncate_weight(one, {}, {}, 1)), one) < kTruncateRounding);
  const at::Tensor zero = torch::zeros({3, 2}, torch::kDouble);
  CHECK(at::equal(product(truncate_weight(zero, {}, {}, 2)), zero));
  CHECK(at::equal(truncate_weight(zero, {}, {}, 0).up_bias, torch::zeros({3}, torch::kDouble)));
}

TEST_CASE("the signs of truncated factors are fixed, and float32 weights give float32 factors") {
  torch::manual_seed(6);
  const at::Tensor weight = torch::randn({7, 5});
  const Factors factors = truncate_weight(weight, torch::randn({7}), torch::randn({5}), 4);
  CHECK(factors.up.dtype() == torch::kFloat);
  CHECK(factors.up_bias.dtype() == torch::kFloat);
  CHECK((factors.up.gather(0, factors.up.abs().argmax(0, true)) > 0.0).all().item<bool>());
  const Factors exact = truncate_weight(weight.to(at::kDouble), {}, {}, 4);
  CHECK(relative_error(product(factors), product(exact)) < 1e-6);
}

TEST_CASE("truncation refuses a rank beyond the weight's and an input mean that does not fit") {
  const at::Tensor weight = torch::ones({4, 3});
  CHECK_THROWS_MATCHES(truncate_weight(weight, {}, {}, 4), std::invalid_argument,
                       Message("truncate_weight: k must be in [0, 3], got 4"));
  CHECK_THROWS_MATCHES(truncate_weight(weight, {}, torch::zeros({4}), 2), std::invalid_argument,
                       Message("truncate_weight: input_mean must be floating point of shape [3], got Float [4]"));
  CHECK_THROWS_MATCHES(truncate_weight(torch::full({2, 2}, INFINITY), {}, {}, 1), std::invalid_argument,
                       Message("truncate_weight: weight must be finite, got a NaN or an infinity"));
}

}  // namespace afm::testing
