#include "libafm/compress/plan.h"

#include <algorithm>
#include <numeric>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include "libafm/compress/factorize.h"
#include "libafm/linalg/spectrum.h"
#include "tests/compress/ranker.h"

namespace afm::testing {
namespace {

using Catch::Matchers::WithinRel;

constexpr double kShareRounding = 1e-12;  // of shares of variance

const Statistics& planned_statistics() {
  static const Statistics statistics = statistics_of(make_ranker(), make_ids(600));
  return statistics;
}

// Share of the variance that a layer keeps as a whole: for an embedding, of all fields by their share of rows.
double kept_energy(const Statistics& statistics, const RankPlan& plan, const std::string& layer) {
  const auto& own = statistics.layers.at(layer);
  double lost = 0.0, total = 0.0;
  for (const LayerSummary& line : summarize(statistics, plan)) {
    if (line.layer != layer) continue;
    const Moments& output = own.output.at(static_cast<std::size_t>(std::max<int64_t>(line.field, 0)));
    lost += output.count() * line.predicted_mse;
    total += output.count() * output.covariance().trace().item<double>();
  }
  return 1.0 - lost / total;
}

double smallest_energy(const Statistics& statistics, const RankPlan& plan) {
  double smallest = 1.0;
  for (const auto& [layer, own] : statistics.layers) {
    smallest = std::min(smallest, kept_energy(statistics, plan, layer));
  }
  return smallest;
}

// Whether one more rank somewhere, or one more dense layer, would stay within the budget and bring something.
bool can_grow(const Statistics& statistics, const RankPlan& plan, int64_t budget) {
  const auto fits = [&](const RankPlan& larger) { return planned_parameters(statistics, larger) <= budget; };
  for (const auto& [layer, layer_plan] : plan) {
    RankPlan dense = plan;
    dense.erase(layer);
    if (fits(dense) && kept_energy(statistics, plan, layer) < 1.0 - kShareRounding) return true;
    for (std::size_t i = 0; i < layer_plan.ranks.size(); ++i) {
      const bool is_embedding = statistics.layers.at(layer).is_embedding;
      const auto values = spectrum_values(statistics, layer, is_embedding ? static_cast<int64_t>(i) : -1);
      const auto rank = static_cast<std::size_t>(layer_plan.ranks[i]);
      RankPlan larger = plan;
      ++larger.at(layer).ranks[i];
      if (rank < values.size() && values[rank] > 1e-10 * values[0] && fits(larger)) return true;
    }
  }
  return false;
}

RankPlan random_plan(const Statistics& statistics, int64_t seed) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  const auto random = [](int64_t largest) { return torch::randint(largest + 1, {1}).item<int64_t>(); };
  RankPlan plan;
  for (const auto& [path, layer] : statistics.layers) {
    if (random(2) == 0) continue;
    LayerPlan& own = plan[path];
    if (layer.is_embedding) {
      for (std::size_t j = 0; j < layer.cardinalities.size(); ++j) own.ranks.push_back(random(layer.embedding_dim));
      own.basis = random(1) == 0 ? Basis::kField : Basis::kShared;
    } else {
      own.ranks = {random(std::min(layer.in_features, layer.out_features))};
    }
  }
  return plan;
}

TEST_CASE("planned parameters are those of the factorized model, for any plan") {
  const auto seed = GENERATE(range(0, 12));
  auto ranker = make_ranker();
  const auto& statistics = planned_statistics();
  const auto plan = random_plan(statistics, seed);
  factorize_(*ranker, statistics, plan);
  CHECK(planned_parameters(statistics, plan) == parameter_count(*ranker));

  int64_t before = 0, after = 0;
  for (const LayerSummary& line : summarize(statistics, plan)) {
    before += line.parameters_before;
    after += line.parameters_after;
  }
  CHECK(before - after == statistics.parameters - parameter_count(*ranker));
}

TEST_CASE("the energy policy meets a ratio from below, leaves nothing to spend, and beats less energy everywhere") {
  const double ratio = GENERATE(1.1, 1.5, 2.0, 3.0, 4.5);
  const auto basis = GENERATE(Basis::kField, Basis::kShared);
  const auto& statistics = planned_statistics();
  const auto plan = plan_ranks(statistics, {.ratio = ratio, .basis = basis});
  const auto budget = static_cast<int64_t>(static_cast<double>(statistics.parameters) / ratio);
  CHECK(planned_parameters(statistics, plan) <= budget);
  if (basis == Basis::kField) CHECK_FALSE(can_grow(statistics, plan, budget));

  // The same threshold everywhere: every layer keeps what the weakest keeps, and more would not fit.
  const double energy = smallest_energy(statistics, plan);
  const auto more = plan_ranks(statistics, {.energy = std::min(1.0, energy + 1e-6), .basis = basis});
  CHECK(planned_parameters(statistics, more) > budget);
}

TEST_CASE("can_grow sees a plan that leaves parameters over") {
  const auto& statistics = planned_statistics();
  const auto plan = plan_ranks(statistics, {.ratio = 3.0});
  CHECK(can_grow(statistics, plan, planned_parameters(statistics, plan) + 200));
}

TEST_CASE("an energy is kept by every layer, with no more rank than it takes") {
  const double energy = GENERATE(0.5, 0.9, 0.99, 0.999);
  const auto basis = GENERATE(Basis::kField, Basis::kShared);
  const auto policy = GENERATE(RankPolicy::kEnergy, RankPolicy::kUniform);
  const auto& statistics = planned_statistics();
  const auto plan = plan_ranks(statistics, {.energy = energy, .policy = policy, .basis = basis});
  if (energy <= 0.9) REQUIRE_FALSE(plan.empty());
  CHECK(smallest_energy(statistics, plan) >= energy - kShareRounding);
  if (policy == RankPolicy::kUniform) return;
  for (const auto& [layer, layer_plan] : plan) {
    if (statistics.layers.at(layer).is_embedding) continue;
    RankPlan less = plan;
    --less.at(layer).ranks[0];
    CHECK(kept_energy(statistics, less, layer) < energy);
  }
}

TEST_CASE("the fields of an embedding compete: the largest eigenvalues of all are kept, a still field gets rank 0") {
  auto ranker = make_ranker();
  {
    const torch::NoGradGuard no_grad;
    auto still = ranker->embedding->weight.narrow(0, 60, 9);  // field 1
    still.copy_(still[0] + 1e-5 * still);
  }
  const auto statistics = statistics_of(ranker, make_ids(600));
  const auto ranks = plan_ranks(statistics, {.energy = 0.97}).at("embedding").ranks;
  CHECK(ranks[1] == 0);

  double smallest_kept = 1e300, largest_dropped = 0.0;
  const auto& layer = statistics.layers.at("embedding");
  for (std::size_t j = 0; j < ranks.size(); ++j) {
    const auto values = spectrum_values(statistics, "embedding", static_cast<int64_t>(j));
    const double share = layer.output[j].count() / layer.output[0].count();
    const auto rank = static_cast<std::size_t>(ranks[j]);
    if (rank > 0) smallest_kept = std::min(smallest_kept, share * values[rank - 1]);
    if (rank < values.size()) largest_dropped = std::max(largest_dropped, share * values[rank]);
  }
  CHECK(smallest_kept >= largest_dropped);
}

TEST_CASE("the uniform policy gives every layer the same share of its rank, the largest that fits") {
  const double ratio = GENERATE(2.0, 3.0);
  const auto& statistics = planned_statistics();
  const auto plan = plan_ranks(statistics, {.ratio = ratio, .policy = RankPolicy::kUniform});
  const auto budget = static_cast<int64_t>(static_cast<double>(statistics.parameters) / ratio);
  CHECK(planned_parameters(statistics, plan) <= budget);

  const auto& embedding = plan.at("embedding").ranks;
  const auto mix = plan.at("tower.mix").ranks[0];
  CHECK(std::ranges::count(embedding, embedding[0]) == std::ssize(embedding));
  // Both are a share s, rounded: their intervals of s overlap.
  CHECK((static_cast<double>(mix) - 0.5) / 24.0 <= (static_cast<double>(embedding[0]) + 0.5) / kDim);
  CHECK((static_cast<double>(embedding[0]) - 0.5) / kDim <= (static_cast<double>(mix) + 0.5) / 24.0);

  RankPlan larger = plan;
  ++larger.at("tower.mix").ranks[0];
  ++larger.at("tower.narrow").ranks[0];
  for (auto& rank : larger.at("embedding").ranks) ++rank;
  CHECK(planned_parameters(statistics, larger) > budget);
}

TEST_CASE("a budget in bytes counts parameters of their dtype, and buffers") {
  auto ranker = make_ranker(1, torch::kFloat);
  ranker->register_buffer("statistics", torch::zeros({250}));
  const auto statistics = statistics_of(ranker, make_ids(300));
  const int64_t bytes = 1000 + 4 * statistics.parameters / 2;
  const auto plan = plan_ranks(statistics, {.bytes = bytes});
  factorize_(*ranker, statistics, plan);
  CHECK(byte_count(*ranker) <= bytes);
  CHECK(byte_count(*ranker) > bytes - 4 * 50);
}

TEST_CASE("a budget that is met already needs no ranks") {
  const auto& statistics = planned_statistics();
  CHECK(plan_ranks(statistics, {.bytes = statistics.bytes}).empty());
}

TEST_CASE("layers that are skipped, have one output or do not pay stay dense") {
  const auto& statistics = planned_statistics();
  const auto plan = plan_ranks(statistics, {.energy = 0.9});
  CHECK(plan.contains("tower.narrow"));
  CHECK_FALSE(plan.contains("head"));
  CHECK_FALSE(plan.contains("spare"));
  const auto skipping = plan_ranks(statistics, {.energy = 0.9, .skip = {"tower", "spare"}});
  CHECK(skipping.size() == 1);
  CHECK(skipping.contains("embedding"));
  // At nearly all of the variance the factors are larger than the layers.
  CHECK(plan_ranks(statistics, {.energy = 1.0 - 1e-9}).empty());
}

TEST_CASE("basis and activation go where they belong") {
  const auto plan = plan_ranks(planned_statistics(),
                               {.ratio = 2.0, .basis = Basis::kShared, .activation = FactorActivation::kShiftedRelu});
  CHECK(plan.at("embedding").basis == Basis::kShared);
  CHECK(plan.at("embedding").activation == FactorActivation::kNone);
  CHECK(plan.at("tower.mix").activation == FactorActivation::kShiftedRelu);
  CHECK(plan.at("tower.mix").basis == Basis::kField);
}

TEST_CASE("a summary has a line per linear layer and per field") {
  const auto& statistics = planned_statistics();
  RankPlan plan;
  plan["tower.mix"].ranks = {5};
  plan["embedding"].ranks = {6, 0, 2, 1};
  const auto lines = summarize(statistics, plan);
  REQUIRE(lines.size() == 7);

  CHECK(lines[1].layer == "embedding");
  CHECK(lines[1].field == 1);
  CHECK(lines[1].rows == 9);
  CHECK(lines[1].columns == 6);
  CHECK(lines[1].rank == 0);
  CHECK(lines[1].kept_energy == 0.0);
  CHECK(lines[1].parameters_before == 9 * 7);
  CHECK(lines[1].parameters_after == 9 + 6);

  CHECK(lines[5].layer == "tower.mix");
  CHECK(lines[5].field == -1);
  CHECK_FALSE(lines[5].dense);
  CHECK(lines[5].rank == 5);
  const auto values = spectrum_values(statistics, "tower.mix");
  const double total = std::accumulate(values.begin(), values.end(), 0.0);
  const double lost = std::accumulate(values.begin() + 5, values.end(), 0.0);
  CHECK_THAT(lines[5].predicted_mse, WithinRel(lost, kShareRounding));
  CHECK_THAT(lines[5].kept_energy, WithinRel(1.0 - lost / total, kShareRounding));
  CHECK(lines[5].parameters_after == 5 * 48 + 5 + 24);

  CHECK(lines[6].layer == "tower.narrow");
  CHECK(lines[6].dense);
  CHECK(lines[6].rank == 16);
  CHECK(lines[6].parameters_after == lines[6].parameters_before);
}

}  // namespace
}  // namespace afm::testing
