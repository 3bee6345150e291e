#include "libafm/compress/factorize.h"

#include <algorithm>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/compress/plan.h"
#include "libafm/metrics/metrics.h"
#include "tests/compress/layer_error.h"
#include "tests/compress/ranker.h"
#include "tests/compress/tiny_model.h"

namespace afm::testing {
namespace {

// Theorem 1 holds for the calibration rows themselves, so only rounding is left between prediction and measurement.
constexpr double kPrediction = 1e-9;
constexpr int64_t kFactorRows = 400;

RankPlan full_plan(const Statistics& statistics, Basis basis = Basis::kField) {
  RankPlan plan;
  for (const auto& [path, layer] : statistics.layers) {
    plan[path].basis = layer.is_embedding ? basis : Basis::kField;
    plan[path].ranks = layer.is_embedding ? std::vector<int64_t>(layer.cardinalities.size(), layer.embedding_dim)
                                          : std::vector<int64_t>{std::min(layer.in_features, layer.out_features)};
  }
  return plan;
}

TEST_CASE("full rank reproduces the logits") {
  const auto dtype = GENERATE(torch::kDouble, torch::kFloat);
  const auto basis = GENERATE(Basis::kField, Basis::kShared);
  const auto method = GENERATE(FactorMethod::kMimic, FactorMethod::kWeightSvd);
  const torch::NoGradGuard no_grad;
  auto ranker = make_ranker(1, dtype);
  const auto ids = make_ids(kFactorRows);
  const auto before = ranker(ids);
  const auto statistics = statistics_of(ranker, ids, {.whole_training_set = true});
  factorize_(*ranker, statistics, full_plan(statistics, basis), method);
  CHECK_FALSE(ranker->tower->mix->is_dense());
  CHECK_FALSE(ranker->embedding->is_dense());
  const double scale = before.abs().max().item<double>();
  CHECK(largest_difference(ranker(ids), before) < (dtype == torch::kDouble ? 1e-10 : 1e-5) * scale);
}

TEST_CASE("the empty plan changes nothing") {
  const torch::NoGradGuard no_grad;
  auto ranker = make_ranker();
  const auto ids = make_ids(kFactorRows);
  const auto before = ranker(ids);
  factorize_(*ranker, statistics_of(ranker, ids), {});
  CHECK(torch::equal(ranker(ids), before));
  CHECK(ranker->embedding->is_dense());
}

TEST_CASE("the error of a linear layer on the calibration rows is the predicted one") {
  const auto* path = GENERATE("tower.mix", "tower.narrow", "head");
  const auto ids = make_ids(kFactorRows);
  const auto statistics = statistics_of(make_ranker(), ids);
  const int64_t largest = std::string(path) == "head" ? 0 : 14;
  for (int64_t rank = 0; rank <= largest; rank += 3) {
    const RankPlan plan = {{path, {.ranks = {rank}}}};
    const double predicted = line_of(summarize(statistics, plan), path).predicted_mse;
    const double measured = linear_error(path, ids, [&](Ranker ranker) { factorize_(*ranker, statistics, plan); });
    CHECK(std::abs(measured - predicted) < kPrediction * predicted);
  }
}

TEST_CASE("the error of every field on the calibration rows is the predicted one") {
  const auto basis = GENERATE(Basis::kField, Basis::kShared);
  const auto ids = make_ids(kFactorRows);
  const auto statistics = statistics_of(make_ranker(), ids);
  for (int64_t rank = 0; rank < kDim; ++rank) {
    const RankPlan plan = {{"embedding", {.ranks = {rank, 3, (rank + 2) % kDim, 1}, .basis = basis}}};
    const auto lines = summarize(statistics, plan);
    const auto measured = field_errors(ids, [&](Ranker ranker) { factorize_(*ranker, statistics, plan); });
    for (int64_t field = 0; field < 4; ++field) {
      const double predicted = line_of(lines, "embedding", field).predicted_mse;
      CHECK(predicted > 0.0);
      CHECK(std::abs(measured.at(static_cast<std::size_t>(field)) - predicted) < kPrediction * predicted);
    }
  }
}

TEST_CASE("control: factors that are 1 % too large break the prediction") {
  const auto ids = make_ids(kFactorRows);
  const auto statistics = statistics_of(make_ranker(), ids);
  const RankPlan plan = {{"tower.mix", {.ranks = {9}}}, {"embedding", {.ranks = {2, 2, 2, 2}}}};
  const auto lines = summarize(statistics, plan);
  const auto too_large = [&](Ranker ranker) {
    factorize_(*ranker, statistics, plan);
    const torch::NoGradGuard no_grad;
    ranker->tower->mix->up.mul_(1.01);
    ranker->embedding->latent.mul_(1.01);
  };
  const auto off = [](double measured, double predicted) { return std::abs(measured / predicted - 1.0); };
  CHECK(off(linear_error("tower.mix", ids, too_large), line_of(lines, "tower.mix").predicted_mse) > 1e-4);
  const auto measured = field_errors(ids, too_large);
  for (int64_t field = 0; field < 4; ++field) {
    CHECK(off(measured.at(static_cast<std::size_t>(field)), line_of(lines, "embedding", field).predicted_mse) > 1e-4);
  }
}

TEST_CASE("mimicking is never worse on the outputs than the SVD of the weights") {
  const auto basis = GENERATE(Basis::kField, Basis::kShared);
  const auto ids = make_ids(kFactorRows);
  const auto statistics = statistics_of(make_ranker(), ids);
  const int64_t rank = GENERATE(1, 2, 4);
  const RankPlan plan = {{"tower.mix", {.ranks = {3 * rank}}},
                         {"tower.narrow", {.ranks = {2 * rank}}},
                         {"embedding", {.ranks = {rank, rank, rank, rank}, .basis = basis}}};
  const auto by = [&](FactorMethod method) {
    return [&, method](Ranker ranker) { factorize_(*ranker, statistics, plan, method); };
  };
  for (const auto* path : {"tower.mix", "tower.narrow"}) {
    CHECK(linear_error(path, ids, by(FactorMethod::kMimic)) < linear_error(path, ids, by(FactorMethod::kWeightSvd)));
  }
  const auto mimic = field_errors(ids, by(FactorMethod::kMimic)), svd = field_errors(ids, by(FactorMethod::kWeightSvd));
  double mimic_sum = 0.0, svd_sum = 0.0;
  for (std::size_t field = 0; field < mimic.size(); ++field) {
    // A shared basis is the best for all fields together, not for each.
    if (basis == Basis::kField) CHECK(mimic[field] < svd[field]);
    const double rows = statistics.layers.at("embedding").output[field].count();
    mimic_sum += rows * mimic[field];
    svd_sum += rows * svd[field];
  }
  CHECK(mimic_sum < svd_sum);
}

TEST_CASE("the weight SVD of a table is the best rank-k matrix for it, without an offset") {
  auto ranker = make_ranker();
  const auto ids = make_ids(kFactorRows);
  const auto table = ranker->embedding->table(0);
  factorize_(*ranker, statistics_of(ranker, ids), {{"embedding", {.ranks = {2, 2, 2, 2}}}}, FactorMethod::kWeightSvd);
  const auto singular = torch::linalg_svdvals(table);
  const double wanted = singular.narrow(0, 2, kDim - 2).square().sum().item<double>();
  const double got = (table - ranker->embedding->table(0)).square().sum().item<double>();
  CHECK(std::abs(got - wanted) < kPrediction * wanted);
  CHECK(ranker->embedding->offset.abs().max().item<double>() == 0.0);
}

TEST_CASE("an id that was never trained gets the mean of its field, others keep their own") {
  const auto whole = GENERATE(false, true);
  auto ranker = make_ranker();
  const auto ids = make_ids(kFactorRows);
  const auto table = ranker->embedding->table(3);
  const auto statistics = statistics_of(ranker, ids, {.whole_training_set = whole});
  const auto& layer = statistics.layers.at("embedding");
  REQUIRE(layer.id_counts[3][13].item<double>() == 0.0);
  REQUIRE(layer.id_counts[3][0].item<double>() > 0.0);
  factorize_(*ranker, statistics, {{"embedding", {.ranks = {2, 2, 2, 5}}}});
  const auto after = ranker->embedding->table(3);
  const auto mean = layer.output[3].mean();
  CHECK((largest_difference(after[13], mean) < 1e-12) == whole);
  CHECK(largest_difference(after[0], mean) > 1e-3);
  const auto basis = ranker->embedding->basis.narrow(0, 6, 5);  // behind two ranks each of three fields
  const auto own = torch::mv(basis.t(), torch::mv(basis, table[13])) + ranker->embedding->offset[3];
  CHECK((largest_difference(after[13], own) < 1e-12) == !whole);
}

TEST_CASE("wide weights stay as they are") {
  auto ranker = make_ranker();
  const auto wide = ranker->embedding->wide_weights();
  const auto statistics = statistics_of(ranker, make_ids(kFactorRows));
  factorize_(*ranker, statistics, {{"embedding", {.ranks = {1, 0, 6, 2}}}});
  CHECK(torch::equal(ranker->embedding->wide_weights(), wide));
}

TEST_CASE("rank 0 gives the mean") {
  const torch::NoGradGuard no_grad;
  auto ranker = make_ranker();
  const auto ids = make_ids(kFactorRows);
  const auto statistics = statistics_of(ranker, ids);
  factorize_(*ranker, statistics, {{"embedding", {.ranks = {0, 6, 6, 6}}}, {"tower.narrow", {.ranks = {0}}}});
  const auto values = ranker->embedding(ids).select(1, 0);
  CHECK(largest_difference(values, statistics.layers.at("embedding").output[0].mean().expand_as(values)) < 1e-12);
  const auto narrow = ranker->tower->narrow(torch::randn({3, 24}, torch::kDouble));
  CHECK(largest_difference(narrow, statistics.layers.at("tower.narrow").output[0].mean().expand_as(narrow)) < 1e-12);
}

TEST_CASE("factorize leaves the model alone and gives a small copy of it") {
  TinyModel model;
  model.eval();
  const auto dataset = tiny_dataset(300);
  const auto before = predict(model, dataset);
  const auto statistics = statistics_of(model, dataset);
  const auto plan = plan_ranks(statistics, {.ratio = 1.5});
  const auto small = factorize(model, statistics, plan);
  CHECK((nn::rank_plan_of(*small) == plan));
  CHECK(nn::rank_plan_of(model).empty());
  CHECK(torch::equal(predict(model, dataset), before));
  CHECK(parameter_count(*small) == planned_parameters(statistics, plan));
  const auto after = predict(*small, dataset);
  CHECK(largest_difference(after, before) > 0.0);
  const auto correlation = torch::corrcoef(torch::stack({after, before}))[0][1].item<double>();
  CHECK(correlation > 0.8);
}

}  // namespace
}  // namespace afm::testing
