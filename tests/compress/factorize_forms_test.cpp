#include <cmath>
#include <stdexcept>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/compress/directions.h"
#include "libafm/compress/factorize.h"
#include "libafm/metrics/metrics.h"
#include "tests/compress/mlp_model.h"
#include "tests/compress/ranker.h"
#include "tests/core/temporary_folder.h"

namespace afm::testing {
namespace {

constexpr int64_t kFormRows = 400;
constexpr double kFormRounding = 1e-9;

// [N_j, D + 1] of each field.
std::vector<at::Tensor> joint_tables(Ranker ranker) {
  std::vector<at::Tensor> tables;
  const auto wide = ranker->embedding->wide_weights();
  int64_t row = 0;
  for (std::size_t j = 0; j < kCardinalities.size(); ++j) {
    tables.push_back(torch::cat(
        {ranker->embedding->table(static_cast<int64_t>(j)), wide.narrow(0, row, kCardinalities[j]).unsqueeze(1)}, 1));
    row += kCardinalities[j];
  }
  return tables;
}

// Squared error over the looked-up rows of a field with one slot, in a metric.
double table_error(const at::Tensor& got, const at::Tensor& wanted, const at::Tensor& counts,
                   const OutputMetric& metric) {
  const at::Tensor lost = metric.is_plain() ? got - wanted : torch::mm(got - wanted, metric.root);
  return (lost.square().sum(1) * counts).sum().item<double>() / counts.sum().item<double>();
}

RankPlan embedding_plan(LayerPlan plan) { return {{"embedding", std::move(plan)}}; }

TEST_CASE("joint factors have the predicted error in embedding and wide weight together, in either norm") {
  const bool metric = GENERATE(false, true);
  auto ranker = make_ranker();
  const auto ids = make_ids(kFormRows);
  const auto statistics = statistics_of(ranker, ids, {.metric = metric});
  const auto before = joint_tables(ranker);
  const LayerStatistics& layer = statistics.layers.at("embedding");
  const auto directions = output_directions(layer, {.joint = true, .metric = metric});
  factorize_(*ranker, statistics, embedding_plan({.ranks = {3, 1, 2, 0}, .joint = true}));
  CHECK(ranker->embedding->options.joint);
  const auto after = joint_tables(ranker);
  for (const std::size_t j : {0u, 1u, 3u}) {
    const int64_t rank = ranker->embedding->options.ranks[j];
    const double error = table_error(after[j], before[j], layer.id_counts[j], directions[j].metric);
    CHECK(std::abs(error - directions[j].discarded(rank)) < kFormRounding * directions[j].discarded(0));
  }
}

TEST_CASE("with a metric every layer has the predicted error in it") {
  auto ranker = make_ranker();
  const auto ids = make_ids(kFormRows);
  const auto statistics = statistics_of(ranker, ids, {.metric = true});
  const auto& layer = statistics.layers.at("tower.narrow");
  const auto directions = output_directions(layer, {.metric = true}).front();
  torch::NoGradGuard no_grad;
  const auto input =
      torch::relu(ranker->tower->mix(torch::relu(ranker->tower->mix(ranker->embedding(ids).flatten(1)))));
  const auto before = ranker->tower->narrow(input);
  factorize_(*ranker, statistics, {{"tower.narrow", {.ranks = {4}}}});
  const auto lost = torch::mm(ranker->tower->narrow(input) - before, directions.metric.root);
  const double error = lost.square().sum(1).mean().item<double>();
  CHECK(std::abs(error - directions.discarded(4)) < kFormRounding * directions.discarded(0));
}

TEST_CASE("metric_eps of 1 gives the factors of squared error") {
  const auto ids = make_ids(kFormRows);
  auto plain = make_ranker(), mixed = make_ranker(), measured = make_ranker();
  const RankPlan plan = {{"tower.mix", {.ranks = {5}}}, {"embedding", {.ranks = {2, 2, 2, 2}}}};
  factorize_(*plain, statistics_of(plain, ids), plan);
  const auto statistics = statistics_of(mixed, ids, {.metric = true});
  factorize_(*mixed, statistics, plan, FactorMethod::kMimic, 1.0);
  factorize_(*measured, statistics, plan);
  const torch::NoGradGuard no_grad;
  CHECK(largest_difference(mixed(ids), plain(ids)) < 1e-7);
  CHECK(largest_difference(measured(ids), plain(ids)) > 1e-3);
}

TEST_CASE("a shared basis in a metric loses what is predicted, in each field's own metric") {
  auto ranker = make_ranker();
  const auto ids = make_ids(kFormRows);
  const auto statistics = statistics_of(ranker, ids, {.metric = true});
  const LayerStatistics& layer = statistics.layers.at("embedding");
  const auto directions = output_directions(layer, {.basis = Basis::kShared, .metric = true});
  std::vector<at::Tensor> before;
  for (int64_t j = 0; j < 4; ++j) before.push_back(ranker->embedding->table(j));
  const std::vector<int64_t> ranks = {4, 2, 3, 1};
  factorize_(*ranker, statistics, embedding_plan({.ranks = ranks, .basis = Basis::kShared}));
  for (const std::size_t j : {0u, 1u, 3u}) {
    const auto own = output_metric(layer.metric[j].narrow(0, 0, kDim).narrow(1, 0, kDim));
    const double error =
        table_error(ranker->embedding->table(static_cast<int64_t>(j)), before[j], layer.id_counts[j], own);
    // What later directions cannot make better is counted as the error before them.
    CHECK(std::abs(error - directions[j].discarded(ranks[j])) < 1e-6 * directions[j].discarded(0));
  }
}

TEST_CASE("tiers keep the coordinates of their rank about the field's mean, shared ones their mean row") {
  const bool joint = GENERATE(false, true);
  const bool metric = GENERATE(false, true);
  auto ranker = make_ranker();
  const auto ids = make_ids(kFormRows);
  const auto statistics = statistics_of(ranker, ids, {.metric = metric});
  const auto before = joint_tables(ranker);
  const LayerStatistics& layer = statistics.layers.at("embedding");
  LayerPlan plan{.ranks = {5, 6, 6, 6}, .joint = joint};
  plan.tiers = {{{.rows = 10, .rank = 5}, {.rows = 20, .rank = 2}, {.rows = 30, .rank = 2, .shared = true}},
                {{.rows = 3, .rank = 6}, {.rows = 6, .rank = 0}},
                {},
                {{.rows = 4, .rank = 6}, {.rows = 10, .rank = 6, .shared = true}}};
  factorize_(*ranker, statistics, embedding_plan(plan));
  const auto after = joint_tables(ranker);

  // Each tier is what factors of its rank make of its rows.
  const int64_t width = joint ? kDim + 1 : kDim;
  const auto directions = output_directions(layer, {.joint = joint, .metric = metric});
  const at::Tensor mean = moments_of(layer, joint)[0].mean(), rows = before[0].narrow(1, 0, width);
  const auto mimicked = [&](const at::Tensor& some, int64_t rank) {
    const auto factors = mimic_table(some, mean, directions[0].spectrum, rank, directions[0].metric);
    return torch::mm(factors.latent, factors.basis) + factors.offset;
  };
  const at::Tensor got = after[0].narrow(1, 0, width);
  CHECK(largest_difference(got.narrow(0, 0, 10), mimicked(rows.narrow(0, 0, 10), 5)) < kFormRounding);
  CHECK(largest_difference(got.narrow(0, 10, 20), mimicked(rows.narrow(0, 10, 20), 2)) < kFormRounding);
  const auto mean_of = [&](std::size_t field, int64_t begin, int64_t count) {
    const auto counts = layer.id_counts[field].narrow(0, begin, count);
    return torch::mv(before[field].narrow(0, begin, count).t(), counts) / counts.sum();
  };
  const auto shared = mimicked(mean_of(0, 30, 30).narrow(0, 0, width).unsqueeze(0), 2);
  CHECK(largest_difference(got.narrow(0, 30, 30), shared.expand({30, width})) < kFormRounding);
  CHECK(largest_difference(after[1].narrow(0, 3, 6).narrow(1, 0, width),
                           moments_of(layer, joint)[1].mean().expand({6, width})) < kFormRounding);
  // Wide weights of their own are shared too, elsewhere they stay.
  if (joint) return;
  CHECK(largest_difference(after[3].narrow(0, 4, 10), mean_of(3, 4, 10).expand({10, kDim + 1})) < 1e-8);
  CHECK(largest_difference(after[0].narrow(0, 0, 30).select(1, kDim), before[0].narrow(0, 0, 30).select(1, kDim)) ==
        0.0);
}

TEST_CASE("ids that were never trained are the mean of their field in tiers too") {
  auto ranker = make_ranker();
  const auto ids = make_ids(kFormRows);
  const auto statistics = statistics_of(ranker, ids, {.whole_training_set = true});
  const auto& layer = statistics.layers.at("embedding");
  REQUIRE(layer.id_counts[0][59].item<double>() == 0.0);
  LayerPlan plan{.ranks = {5, 2, 2, 2}};
  plan.tiers = {{{.rows = 20, .rank = 5}, {.rows = 40, .rank = 3}}, {}, {}, {}};
  factorize_(*ranker, statistics, embedding_plan(plan));
  CHECK(largest_difference(ranker->embedding->table(0)[59], layer.output[0].mean()) < 1e-9);
}

TEST_CASE("bits are passed on to factors and to layers that stay dense, whose floats stay") {
  auto ranker = make_ranker();
  const auto ids = make_ids(kFormRows);
  const auto weight = ranker->tower->mix->weight.detach().clone();
  const auto statistics = statistics_of(ranker, ids);
  const RankPlan plan = {{"tower.mix", {.bits = Bits::kInt8}},
                         {"tower.narrow", {.ranks = {5}, .bits = Bits::kInt4, .scale = ScaleBy::kColumn}},
                         {"embedding", {.ranks = {2, 2, 2, 2}, .bits = Bits::kInt8}}};
  factorize_(*ranker, statistics, plan);
  CHECK((nn::rank_plan_of(*ranker) == plan));
  CHECK(torch::equal(ranker->tower->mix->weight, weight));
  auto floats = make_ranker();
  factorize_(*floats, statistics, {{"tower.narrow", {.ranks = {5}}}});
  CHECK(torch::equal(ranker->tower->narrow->down, floats->tower->narrow->down));
}

TEST_CASE("a shifted ReLU in a metric leaves the logits of the calibration rows unchanged") {
  const auto model = make_mlp_model();
  const auto dataset = tiny_dataset(kFormRows);
  const auto statistics = full_statistics(*model, dataset);
  const auto logits = [&](FactorActivation activation) {
    return predict(*factorize(*model, statistics, {{"mlp.layers.1", {.ranks = {4}, .activation = activation}}}),
                   dataset);
  };
  const auto none = logits(FactorActivation::kNone);
  CHECK(largest_difference(logits(FactorActivation::kShiftedRelu), none) < 1e-9);
  CHECK(largest_difference(logits(FactorActivation::kRelu), none) > 1e-3);
}

TEST_CASE("factorize_ refuses a folded basis, and joint factors without joint moments") {
  auto ranker = make_ranker();
  auto statistics = statistics_of(ranker, make_ids(100));
  CHECK(message_of<std::invalid_argument>([&] {
          factorize_(*ranker, statistics, embedding_plan({.ranks = {1, 1, 1, 1}, .basis = Basis::kNone}));
        }) == "the basis of layer 'embedding' must be field or shared before it is folded, got none");
  statistics.layers.at("embedding").joint.clear();
  CHECK(message_of<std::invalid_argument>([&] {
          factorize_(*ranker, statistics, embedding_plan({.ranks = {1, 1, 1, 1}, .joint = true}));
        }) == "the statistics must hold moments of the embedding with its wide weights, they hold none");
}

}  // namespace
}  // namespace afm::testing
