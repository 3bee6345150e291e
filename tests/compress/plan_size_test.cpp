#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "libafm/compress/plan.h"
#include "tests/compress/ranker.h"
#include "tests/core/temporary_folder.h"

namespace afm::testing {
namespace {

const Statistics& sized_statistics() {
  static const Statistics statistics = statistics_of(make_ranker(1, torch::kFloat), make_ids(200));
  return statistics;
}

int64_t random_below(int64_t end) { return torch::randint(end, {1}).item<int64_t>(); }

std::vector<Tier> random_tiers(int64_t rows, int64_t rank) {
  std::vector<Tier> tiers;
  while (rows > 0) {
    const int64_t length = 1 + random_below(rows);
    tiers.push_back({.rows = length, .rank = rank, .shared = random_below(2) == 0});
    rows -= length;
    rank -= random_below(rank + 1);
  }
  return tiers;
}

LayerPlan random_table_plan(const LayerStatistics& layer) {
  LayerPlan plan;
  plan.basis = random_below(3) == 0 ? Basis::kShared : Basis::kField;
  plan.joint = plan.basis == Basis::kField && random_below(2) == 0;
  for (std::size_t j = 0; j < layer.cardinalities.size(); ++j) plan.ranks.push_back(random_below(kDim + 1));
  if (random_below(2) == 0) return plan;
  for (std::size_t j = 0; j < layer.cardinalities.size(); ++j) {
    plan.tiers.push_back(random_below(3) == 0 ? std::vector<Tier>()
                                              : random_tiers(layer.cardinalities[j], plan.ranks[j]));
  }
  return plan;
}

// Any form of any layer: dense or not, floats or integers.
RankPlan random_forms(const Statistics& statistics, int64_t seed) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  RankPlan plan;
  for (const auto& [path, layer] : statistics.layers) {
    LayerPlan own;
    if (random_below(4) > 0) {
      own = layer.is_embedding
                ? random_table_plan(layer)
                : LayerPlan{.ranks = {random_below(std::min(layer.in_features, layer.out_features) + 1)}};
    }
    own.bits = static_cast<Bits>(random_below(3));
    if (own.bits != Bits::kFloat) own.scale = static_cast<ScaleBy>(random_below(2));
    if (!own.ranks.empty() || own.bits != Bits::kFloat) plan[path] = own;
  }
  return plan;
}

TEST_CASE("the planned size is that of the built model, for any plan") {
  const auto seed = GENERATE(range(0, 60));
  auto ranker = make_ranker(1, torch::kFloat);
  ranker->register_buffer("counters", torch::zeros({7}));
  Statistics statistics = sized_statistics();
  statistics.bytes += 7 * 4;
  const RankPlan plan = random_forms(statistics, seed);
  nn::apply_plan(*ranker, plan);
  INFO(plan_to_json(plan));
  const PlanSize size = planned_size(statistics, plan);
  CHECK(size.parameters == parameter_count(*ranker));
  CHECK(size.bytes == byte_count(*ranker));
  CHECK(planned_parameters(statistics, plan) == size.parameters);

  int64_t before = 0, after = 0;
  for (const LayerSummary& line : summarize(statistics, plan)) {
    before += line.parameters_before;
    after += line.parameters_after;
  }
  CHECK(before - after == statistics.parameters - size.parameters);
}

TEST_CASE("multiply-adds are those of the products per row") {
  const auto& statistics = sized_statistics();
  const int64_t rest = 24 * 24 + 24 * 16 + 16;
  CHECK(planned_size(statistics, {}).macs == rest);
  CHECK(planned_size(statistics, {{"tower.mix", {.ranks = {5}}}}).macs == rest - 24 * 24 + 5 * 48);
  const LayerPlan table = {.ranks = {3, 0, 2, 1}};
  CHECK(planned_size(statistics, {{"embedding", table}}).macs == rest + 6 * kDim);
  LayerPlan joint = table;
  joint.joint = true;
  CHECK(planned_size(statistics, {{"embedding", joint}}).macs == rest + 6 * (kDim + 1));
}

TEST_CASE("folding takes basis and offset away and narrows what reads the embedding") {
  const auto& statistics = sized_statistics();
  const PlanOptions folding = {.fold = true, .first_layers = {"tower.mix"}};  // [24, 24]
  RankPlan plan = {{"embedding", {.ranks = {3, 0, 2, 1}}}};
  const PlanSize expanded = planned_size(statistics, plan);
  const PlanSize folded = planned_size(statistics, plan, folding);
  CHECK(folded.parameters == expanded.parameters - 6 * kDim - 4 * kDim - 24 * (24 - 6));
  CHECK(folded.bytes == expanded.bytes - 4 * (6 * kDim + 4 * kDim + 24 * (24 - 6)));
  CHECK(folded.macs == expanded.macs - 6 * kDim - 24 * (24 - 6));
  PlanOptions keeping = folding;
  keeping.keep_basis = true;
  CHECK(planned_size(statistics, plan, keeping).parameters == folded.parameters + 6 * kDim + 6);
  plan["embedding"].basis = Basis::kNone;
  CHECK(planned_size(statistics, plan, {.first_layers = {"tower.mix"}}) == folded);

  // Two vectors [24] and their biases, as a DCN has them.
  PlanOptions crossing = folding;
  crossing.cross_layers = 2;
  CHECK(planned_size(statistics, plan, crossing).parameters == folded.parameters - 2 * 2 * 24 + 2 * 6 + 2 * 3);

  // A factor pair behind it loses columns of its first factor; a folded joint table keeps one vector for wide weights.
  plan["tower.mix"].ranks = {5};
  CHECK(planned_size(statistics, plan, folding).parameters ==
        folded.parameters - (24 * 6 + 24) + 5 * (24 + 6) + 5 + 24);
  const RankPlan joint = {{"embedding", {.ranks = {3, 0, 2, 1}, .joint = true}}};
  CHECK(planned_size(statistics, joint, folding).parameters == folded.parameters - (60 + 9 + 25 + 14) + 6);
}

TEST_CASE("what reads the embedding is found by the means of its inputs") {
  torch::manual_seed(3);
  nn::Embedding embedding(nn::EmbeddingOptions{.cardinalities = {30, 12}, .embedding_dim = 4, .init_std = 1.0});
  nn::Linear reads(10, 5), reads_less(8, 3), other(10, 5);
  torch::nn::Module root;
  root.register_module("embedding", embedding.ptr());
  root.register_module("reads", reads.ptr());
  root.register_module("reads_less", reads_less.ptr());
  root.register_module("other", other.ptr());
  const auto ids = torch::stack({torch::randint(30, {300}), torch::randint(12, {300})}, 1).to(torch::kInt32);
  const auto statistics =
      collect_statistics(root, batches_of(ids, 100, [&](const at::Tensor& rows) {
                           const at::Tensor x = embedding(rows).flatten(1);
                           const at::Tensor with_dense = torch::cat({x, torch::rand({x.size(0), 2})}, 1);
                           return reads(with_dense).sum(1) + reads_less(x).sum(1) + other(with_dense.flip(1)).sum(1);
                         }));
  const RankPlan plan = {{"embedding", {.ranks = {2, 1}}}};
  const PlanSize expanded = planned_size(statistics, plan), folded = planned_size(statistics, plan, {.fold = true});
  CHECK(folded.macs == expanded.macs - 3 * 4 - (5 + 3) * (8 - 3));
}

TEST_CASE("fewer units cannot be sized without the model") {
  const auto refusal = message_of<std::invalid_argument>([] {
    planned_size(sized_statistics(), {{"tower.mix", {.ranks = {5}, .units = 8}}});
  });
  CHECK(refusal ==
        "the rank plan of layer 'tower.mix' asks for 8 units, which takes the model: call the function with it");
}

}  // namespace
}  // namespace afm::testing
