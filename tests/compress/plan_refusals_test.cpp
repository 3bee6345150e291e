#include <limits>
#include <stdexcept>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "libafm/compress/plan.h"
#include "tests/compress/ranker.h"
#include "tests/core/temporary_folder.h"

namespace afm::testing {
namespace {

using Catch::Matchers::StartsWith;

const Statistics& refused_statistics() {
  static const Statistics statistics = statistics_of(make_ranker(), make_ids(200));
  return statistics;
}

std::string refusal(const PlanOptions& options) {
  return message_of<std::invalid_argument>([&] { plan_ranks(refused_statistics(), options); });
}

TEST_CASE("plan_ranks refuses options that break a rule") {
  const std::string one_budget =
      "PlanOptions must set exactly one of ratio, bytes, macs, predicted_logloss and energy, got ";
  CHECK(refusal({}) == one_budget + "0");
  CHECK(refusal({.ratio = 2.0, .energy = 0.9}) == one_budget + "2");
  CHECK(refusal({.ratio = 1.0}) == "PlanOptions.ratio must be above 1, got 1");
  CHECK(refusal({.ratio = std::numeric_limits<double>::quiet_NaN()}) == "PlanOptions.ratio must be above 1, got nan");
  CHECK(refusal({.bytes = -5}) == "PlanOptions.bytes must be above 0, got -5");
  CHECK(refusal({.energy = 1.5}) == "PlanOptions.energy must be in (0, 1], got 1.5");
  CHECK(refusal({.ratio = 2.0, .skip = {"towre"}}) ==
        "PlanOptions.skip must name layers or what holds them, got 'towre'; the layers are: spare, embedding, head, "
        "tower.mix, tower.narrow");
}

TEST_CASE("a ratio that cannot be reached says what can, and that can be had") {
  const auto policy = GENERATE(RankPolicy::kEnergy, RankPolicy::kUniform);
  const auto message = refusal({.ratio = 1000.0, .policy = policy});
  REQUIRE_THAT(message, StartsWith("PlanOptions.ratio must be at most "));
  const double best = std::stod(message.substr(std::string("PlanOptions.ratio must be at most ").size()));
  CHECK(best > 3.0);
  CHECK(refusal({.ratio = best, .policy = policy}).empty());
  CHECK_FALSE(refusal({.ratio = best + 0.02, .policy = policy}).empty());
}

TEST_CASE("a size that cannot be reached says what can, and that can be had") {
  const auto message = refusal({.bytes = 10});
  REQUIRE_THAT(message, StartsWith("PlanOptions.bytes must be at least "));
  const int64_t best = std::stoll(message.substr(std::string("PlanOptions.bytes must be at least ").size()));
  CHECK(refusal({.bytes = best}).empty());
  CHECK_FALSE(refusal({.bytes = best - 1}).empty());
}

TEST_CASE("without a layer to factorize no ratio can be reached") {
  CHECK(refusal({.ratio = 2.0, .skip = {"embedding", "tower"}}) ==
        "PlanOptions.ratio must be at most 1.00 for these layers, got 2");
}

TEST_CASE("a plan that does not fit the statistics is refused") {
  const auto& statistics = refused_statistics();
  const auto refused = [&](const std::string& layer, std::vector<int64_t> ranks) {
    const RankPlan plan = {{layer, {.ranks = std::move(ranks)}}};
    const auto message = message_of<std::invalid_argument>([&] { summarize(statistics, plan); });
    CHECK(message == message_of<std::invalid_argument>([&] { planned_parameters(statistics, plan); }));
    return message;
  };
  CHECK(refused("tower.mixx", {2}) ==
        "there are no statistics of layer 'tower.mixx'; there are of: embedding, head, tower.mix, tower.narrow");
  CHECK(refused("tower.mix", {2, 3}) == "the rank plan of layer 'tower.mix' must have 1 ranks, got 2");
  CHECK(refused("embedding", {2, 3}) == "the rank plan of layer 'embedding' must have 4 ranks, got 2");
  CHECK(refused("tower.mix", {25}) == "a rank of layer 'tower.mix' must be in [0, 24], got 25");
  CHECK(refused("tower.mix", {-1}) == "a rank of layer 'tower.mix' must be in [0, 24], got -1");
  CHECK(refused("embedding", {1, 2, 7, 3}) == "a rank of layer 'embedding' must be in [0, 6], got 7");
}

TEST_CASE("spectrum_values refuses fields that a layer does not have") {
  const auto refused = [](const std::string& layer, int64_t field) {
    return message_of<std::invalid_argument>([&] { spectrum_values(refused_statistics(), layer, field); });
  };
  CHECK(refused("tower.mix", 0) == "spectrum_values: field of layer 'tower.mix' must be -1, got 0");
  CHECK(refused("embedding", -1) == "spectrum_values: field of layer 'embedding' must be in [0, 3], got -1");
  CHECK(refused("embedding", 4) == "spectrum_values: field of layer 'embedding' must be in [0, 3], got 4");
}

}  // namespace
}  // namespace afm::testing
