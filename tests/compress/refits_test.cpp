#include "libafm/compress/refits.h"

#include <algorithm>
#include <stdexcept>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/compress/comparison.h"
#include "libafm/compress/factorize.h"
#include "libafm/compress/hidden_units.h"
#include "libafm/metrics/metrics.h"
#include "libafm/nn/model_file.h"
#include "tests/compress/mlp_model.h"
#include "tests/core/temporary_folder.h"

namespace afm::testing {
namespace {

constexpr int64_t kRefitRows = 400;

struct Compressed {
  std::shared_ptr<MlpModel> base = make_mlp_model();
  Dataset dataset = tiny_dataset(kRefitRows);
  Statistics statistics = full_statistics(*base, dataset);
  std::shared_ptr<Model> small;

  explicit Compressed(FactorActivation activation = FactorActivation::kNone) {
    small = factorize(*base, statistics,
                      {{"embedding", {.ranks = {2, 2}, .joint = true}},
                       {"mlp.layers.1", {.ranks = {4}, .activation = activation}},
                       {"mlp.layers.2", {.ranks = {3}, .activation = activation}}});
  }
  MlpModel& mlp() { return dynamic_cast<MlpModel&>(*small); }
  double kl() { return compare(*base, *small, dataset).mean_kl; }
  std::vector<RefitStep> refit(const RefitOptions& options = {}) {
    return refit_(*small, *base, dataset, statistics, options);
  }
};

std::vector<std::string> parts_of(const std::vector<RefitStep>& steps) {
  std::vector<std::string> parts;
  for (const RefitStep& step : steps) parts.push_back(step.part);
  return parts;
}

TEST_CASE("refits make the compressed model better on the calibration rows, no step worse") {
  const auto activation = GENERATE(FactorActivation::kNone, FactorActivation::kRelu);
  Compressed it(activation);
  const double before = it.kl();
  const auto steps = it.refit();
  const double after = it.kl();
  CHECK(parts_of(steps) == std::vector<std::string>{"mlp.layers.0", "mlp.norms.0", "mlp.layers.1", "mlp.norms.1",
                                                    "mlp.layers.2", "mlp.norms.2", "mlp.head", "calibration"});
  CHECK(after < 0.8 * before);
  CHECK(std::abs(steps.front().kl_before - before) < 1e-12);
  double now = before;
  for (const RefitStep& step : steps) {
    CHECK(std::abs(step.kl_before - now) < 1e-12);
    CHECK(step.kept == (step.kl_after <= step.kl_before));
    now = step.kept ? step.kl_after : step.kl_before;
  }
  CHECK(std::abs(now - after) < 1e-12);
  CHECK(std::ranges::count_if(steps, &RefitStep::kept) >= 4);
}

TEST_CASE("each layer's outputs, on the inputs it gets, are no farther from the original's than before") {
  const auto activation = GENERATE(FactorActivation::kNone, FactorActivation::kRelu);
  Compressed it(activation);
  const auto error = [&](std::size_t layer) {
    const auto wanted = rows_of(*it.base, *it.base->mlp->layers[layer], it.dataset).output;
    return (rows_of(*it.small, *it.mlp().mlp->layers[layer], it.dataset).output - wanted).square().sum().item<double>();
  };
  const double before = error(0);
  const auto steps = it.refit({.batch_norm = false, .calibration = false});
  REQUIRE(steps.front().part == "mlp.layers.0");
  if (steps.front().kept) {
    CHECK(error(0) < before);
  } else {
    CHECK(error(0) == before);
  }
}

TEST_CASE("a bias refresh gives the outputs of every layer their mean back, if it is kept") {
  Compressed it;
  const auto steps = it.refit({.first_layer = false, .later_layers = false, .batch_norm = false, .calibration = false});
  CHECK(parts_of(steps) == std::vector<std::string>{"mlp.layers.0", "mlp.layers.1", "mlp.layers.2", "mlp.head"});
  for (std::size_t i = 0; i < 3; ++i) {
    if (!steps[i].kept) continue;
    const auto wanted = rows_of(*it.base, *it.base->mlp->layers[i], it.dataset).output.mean(0);
    const auto got = rows_of(*it.small, *it.mlp().mlp->layers[i], it.dataset).output.mean(0);
    CHECK(largest_difference(got, wanted) < 1e-9);
  }
}

TEST_CASE("a refreshed batch norm has the moments of the inputs that it gets, if it is kept") {
  Compressed it;
  const auto steps = it.refit({.biases = false, .first_layer = false, .later_layers = false, .calibration = false});
  REQUIRE(parts_of(steps) == std::vector<std::string>{"mlp.norms.0", "mlp.norms.1", "mlp.norms.2"});
  for (std::size_t i = 0; i < 3; ++i) {
    const auto rows = rows_of(*it.small, *it.mlp().mlp->layers[i], it.dataset).output;
    const auto& norm = it.mlp().mlp->norms[i];
    CHECK((largest_difference(norm->running_mean, rows.mean(0)) < 1e-9) == steps[i].kept);
    CHECK((largest_difference(norm->running_var, rows.var(0)) < 1e-9) == steps[i].kept);
  }
}

TEST_CASE("every refit can be switched off, and parameters keep their identity") {
  Compressed it;
  const auto tensors = state_of(*it.small);
  TensorMap values;
  for (const auto& [name, tensor] : tensors) values[name] = tensor.clone();
  CHECK(it.refit(
              {.biases = false, .first_layer = false, .later_layers = false, .batch_norm = false, .calibration = false})
            .empty());
  for (const auto& [name, tensor] : state_of(*it.small)) CHECK(torch::equal(tensor, values.at(name)));
  CHECK(parts_of(it.refit({.biases = false, .later_layers = false, .batch_norm = false, .calibration = false})) ==
        std::vector<std::string>{"mlp.layers.0"});
  CHECK(parts_of(it.refit({.biases = false, .first_layer = false, .later_layers = false, .batch_norm = false})) ==
        std::vector<std::string>{"calibration"});
  it.refit();
  for (const auto& [name, tensor] : state_of(*it.small)) CHECK(tensor.is_same(tensors.at(name)));
}

TEST_CASE("a step that makes things worse is undone") {
  Compressed it;
  // The original, whose batch norms do not have the moments of these rows: to refresh them does harm.
  it.small = copy_of(*it.base);
  const auto steps = it.refit({.biases = false, .first_layer = false, .later_layers = false, .calibration = false});
  REQUIRE(steps.size() == 3);
  for (const RefitStep& step : steps) {
    CHECK_FALSE(step.kept);
    CHECK(step.kl_after > 1e-6);
  }
  CHECK(torch::equal(predict(*it.small, it.dataset), predict(*it.base, it.dataset)));
}

TEST_CASE("layers with fewer units are fitted to the outputs of these, without statistics left alone") {
  const auto base = make_mlp_model();
  const auto dataset = tiny_dataset(kRefitRows);
  const auto statistics = full_statistics(*base, dataset);
  const RankPlan plan = {{"mlp.layers.0", {.units = 9}}, {"mlp.layers.1", {.ranks = {4}, .units = 8}}};
  const auto alone = parts_of(refit_(*factorize(*base, statistics, plan), *base, dataset));
  CHECK(std::ranges::find(alone, "mlp.layers.0") == alone.end());
  CHECK(std::ranges::find(alone, "mlp.layers.1") == alone.end());
  CHECK(std::ranges::find(alone, "mlp.layers.2") != alone.end());

  // With the biases of the hidden layers wrong: only a refit of these layers can put them right.
  const auto small = factorize(*base, statistics, plan);
  const torch::NoGradGuard no_grad;
  auto& mlp = *dynamic_cast<MlpModel&>(*small).mlp;
  mlp.layers[0]->bias.add_(0.5);
  mlp.layers[1]->up_bias.add_(0.5);
  const KeptUnits kept = choose_units(*base, statistics, {{"mlp.layers.0", 9}, {"mlp.layers.1", 8}});
  const auto steps = refit_(*small, *base, dataset, statistics, {.batch_norm = false, .calibration = false});
  REQUIRE(parts_of(steps).front() == "mlp.layers.0");
  REQUIRE(steps.front().kept);
  const auto wanted = rows_of(*base, *base->mlp->layers[0], dataset).output;
  const auto index = torch::tensor(kept.at("mlp.layers.0"));
  CHECK(largest_difference(rows_of(*small, *mlp.layers[0], dataset).output, wanted.index_select(1, index)) < 1e-6);
}

TEST_CASE("refits refuse bad options") {
  Compressed it;
  CHECK(message_of<std::invalid_argument>([&] { it.refit({.ridge = -1.0}); }) ==
        "RefitOptions.ridge must be at least 0, got -1");
  CHECK(message_of<std::invalid_argument>([&] { it.refit({.max_rows = -1}); }) ==
        "RefitOptions.max_rows must be at least 0, got -1");
}

}  // namespace
}  // namespace afm::testing
