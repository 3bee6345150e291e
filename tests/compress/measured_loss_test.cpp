#include <cmath>

#include <catch2/catch_test_macros.hpp>

#include "libafm/compress/comparison.h"
#include "libafm/compress/factorize.h"
#include "libafm/compress/plan.h"
#include "tests/compress/mlp_model.h"

namespace afm::testing {
namespace {

TEST_CASE("a measured loss is the divergence that a comparison finds with that layer alone changed") {
  const auto model = make_mlp_model();
  const auto dataset = tiny_dataset(300);
  const auto statistics = full_statistics(*model, dataset);
  const MeasureLoss measure = measured_by_kl(*model, statistics, dataset);
  double before = INFINITY;
  for (const int64_t rank : {0, 2, 5, 12}) {
    const LayerPlan plan = {.ranks = {rank}};
    const double loss = measure("mlp.layers.1", plan);
    const auto changed = factorize(*model, statistics, {{"mlp.layers.1", plan}});
    const double found = compare(*model, *changed, dataset).mean_kl;
    CHECK(std::abs(loss - found) < 1e-9 * (1.0 + found));
    CHECK(std::abs(mean_kl(*model, *changed, dataset) - found) < 1e-9 * (1.0 + found));
    CHECK(loss < before);
    before = loss;
  }
  CHECK(before < 1e-12);  // the full rank
}

TEST_CASE("the measured policy fits the budget of the model it measures") {
  const auto model = make_mlp_model({.hidden = {40, 36, 30}});
  const auto dataset = tiny_dataset(300);
  const auto statistics = full_statistics(*model, dataset);
  const PlanOptions options = {.ratio = 2.0, .policy = RankPolicy::kMeasured};
  const auto plan = plan_ranks(statistics, options, measured_by_kl(*model, statistics, dataset));
  const auto small = factorize(*model, statistics, plan);
  CHECK(2 * parameter_count(*small) <= statistics.parameters);
  const auto uniform =
      factorize(*model, statistics, plan_ranks(statistics, {.ratio = 2.0, .policy = RankPolicy::kUniform}));
  CHECK(compare(*model, *small, dataset).mean_kl < compare(*model, *uniform, dataset).mean_kl);
}

}  // namespace
}  // namespace afm::testing
