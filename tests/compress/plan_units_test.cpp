#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/compress/factorize.h"
#include "libafm/compress/plan.h"
#include "tests/compress/mlp_model.h"
#include "tests/core/temporary_folder.h"

namespace afm::testing {
namespace {

const std::vector<int64_t> kHidden = {40, 36, 30};

// Hidden units of the model after the plan.
int64_t units_left(const RankPlan& plan) {
  int64_t units = 0;
  for (std::size_t i = 0; i < kHidden.size(); ++i) {
    const auto found = plan.find("mlp.layers." + std::to_string(i));
    units += found == plan.end() || found->second.units == 0 ? kHidden[i] : found->second.units;
  }
  return units;
}

TEST_CASE("with units as a choice the budget is met by the model that factorize makes, at no more predicted loss") {
  const auto model = make_mlp_model({.hidden = kHidden});
  const auto statistics = full_statistics(*model, tiny_dataset(500));
  const double ratio = GENERATE(1.5, 2.5, 4.0);
  const auto plan = plan_ranks(*model, statistics, {.ratio = ratio, .units = true});
  INFO(plan_to_json(plan));
  const auto small = factorize(*model, statistics, plan);
  CHECK(static_cast<double>(parameter_count(*small)) <= static_cast<double>(statistics.parameters) / ratio);
  CHECK(planned_size(*model, statistics, plan).parameters == parameter_count(*small));
  int64_t fewer = 0;
  double loss = 0.0;
  for (const LayerSummary& line : summarize(*model, statistics, plan)) {
    fewer += line.parameters_before - line.parameters_after;
    loss += line.predicted_logloss;
  }
  const int64_t norms = 2 * (units_left({}) - units_left(plan));
  CHECK(fewer + norms == statistics.parameters - parameter_count(*small));
  CHECK(std::abs(loss - predicted_logloss(*model, statistics, plan)) < 1e-12);
  CHECK(predicted_logloss(*model, statistics, plan) <=
        predicted_logloss(statistics, plan_ranks(statistics, {.ratio = ratio})) * (1.0 + 1e-9));
  if (ratio == 4.0) CHECK(units_left(plan) < units_left({}));
  CHECK((plan_ranks(*model, statistics, {.ratio = ratio}) == plan_ranks(statistics, {.ratio = ratio})));
}

TEST_CASE("a predicted loss is kept by ranks and units together") {
  const auto model = make_mlp_model({.hidden = kHidden});
  const auto statistics = full_statistics(*model, tiny_dataset(500));
  const auto plain = plan_ranks(statistics, {.predicted_logloss = 0.01});
  const auto plan = plan_ranks(*model, statistics, {.predicted_logloss = 0.01, .units = true});
  CHECK(predicted_logloss(*model, statistics, plan) <= 0.01 * (1.0 + 1e-9));
  CHECK(byte_count(*factorize(*model, statistics, plan)) <= byte_count(*factorize(*model, statistics, plain)));
}

TEST_CASE("skipped layers keep their units, and units need input moments") {
  const auto model = make_mlp_model({.hidden = kHidden});
  const auto dataset = tiny_dataset(500);
  const auto statistics = full_statistics(*model, dataset);
  const auto plan = plan_ranks(*model, statistics, {.ratio = 3.0, .skip = {"mlp.layers.0"}, .units = true});
  CHECK_FALSE(plan.contains("mlp.layers.0"));
  const auto without = collect_statistics(*model, logits_of(*model, dataset), {.metric = true});
  CHECK(message_of<std::invalid_argument>([&] {
          plan_ranks(*model, without, {.ratio = 3.0, .units = true});
        }).starts_with("fewer units of layer 'mlp.layers."));
}

}  // namespace
}  // namespace afm::testing
