#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/compress/factorize.h"
#include "tests/compress/layer_error.h"
#include "tests/compress/ranker.h"

namespace afm::testing {
namespace {

constexpr int64_t kActivationRows = 300;

at::Tensor logits_with(const std::string& path, FactorActivation activation, FactorMethod method, int64_t rank,
                       at::ScalarType dtype) {
  const torch::NoGradGuard no_grad;
  auto ranker = make_ranker(1, dtype);
  const auto ids = make_ids(kActivationRows);
  const auto statistics = statistics_of(ranker, ids);
  factorize_(*ranker, statistics, {{path, {.ranks = {rank}, .activation = activation}}}, method);
  return ranker(ids);
}

TEST_CASE("the shifted ReLU leaves the logits of the calibration rows unchanged, the plain one does not") {
  // Not tower.mix: its second use sees what its first one made of the rows, which is no calibration row any more.
  const std::string path = "tower.narrow";
  const auto method = GENERATE(FactorMethod::kMimic, FactorMethod::kWeightSvd);
  const auto dtype = GENERATE(torch::kDouble, torch::kFloat);
  const int64_t rank = GENERATE(1, 5, 16);
  const auto none = logits_with(path, FactorActivation::kNone, method, rank, dtype);
  const auto shifted = logits_with(path, FactorActivation::kShiftedRelu, method, rank, dtype);
  const auto plain = logits_with(path, FactorActivation::kRelu, method, rank, dtype);
  const double scale = none.abs().max().item<double>(), rounding = dtype == torch::kDouble ? 1e-12 : 1e-4;
  CHECK(largest_difference(shifted, none) < rounding * scale);
  CHECK(largest_difference(plain, none) > 100 * rounding * scale);
}

TEST_CASE("at full rank a layer with a shifted ReLU is the layer itself on its calibration rows") {
  const auto ids = make_ids(kActivationRows);
  const auto statistics = statistics_of(make_ranker(), ids);
  const auto error = [&](FactorActivation activation) {
    const RankPlan plan = {{"tower.mix", {.ranks = {24}, .activation = activation}}};
    return linear_error("tower.mix", ids, [&](Ranker ranker) { factorize_(*ranker, statistics, plan); });
  };
  CHECK(error(FactorActivation::kShiftedRelu) < 1e-20);
  CHECK(error(FactorActivation::kRelu) > 1e-3);
}

TEST_CASE("the shift is no larger than it must be for rows at the radius") {
  auto ranker = make_ranker();
  const auto ids = make_ids(kActivationRows);
  const auto statistics = statistics_of(ranker, ids);
  factorize_(*ranker, statistics, {{"tower.narrow", {.ranks = {4}, .activation = FactorActivation::kShiftedRelu}}});
  const auto& layer = statistics.layers.at("tower.narrow");
  const auto& linear = ranker->tower->narrow;
  const auto mean = torch::mv(linear->down, layer.input_mean) + linear->down_bias;
  CHECK((mean - layer.radius).min().item<double>() > -1e-9);
  CHECK((mean - layer.radius).max().item<double>() < 1e-9 + 2.0 * layer.output[0].mean().norm().item<double>());
}

}  // namespace
}  // namespace afm::testing
