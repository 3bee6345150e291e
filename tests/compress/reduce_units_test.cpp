#include <cmath>
#include <stdexcept>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/compress/factorize.h"
#include "libafm/compress/hidden_units.h"
#include "libafm/metrics/metrics.h"
#include "tests/compress/mlp_model.h"
#include "tests/core/temporary_folder.h"

namespace afm::testing {
namespace {

constexpr int64_t kUnitRows = 400;
constexpr double kUnitRounding = 1e-9;

RankPlan keep(const std::string& path, int64_t units) { return {{path, {.units = units}}}; }

const MlpModel& as_mlp(const Model& model) { return dynamic_cast<const MlpModel&>(model); }

TEST_CASE("the hidden layers of a model are those of its Mlp, with what reads them") {
  const auto layers = hidden_layers(*make_mlp_model());
  REQUIRE(layers.size() == 3);
  CHECK(layers[0].path == "mlp.layers.0");
  CHECK(layers[0].norm == "mlp.norms.0");
  CHECK(layers[0].next == "mlp.layers.1");
  CHECK(layers[2].next == "mlp.head");
  const auto joined = hidden_layers(*make_mlp_model({.batch_norm = false, .head = false}));
  REQUIRE(joined.size() == 3);
  CHECK(joined[1].norm.empty());
  CHECK(joined[2].next == "head");
  CHECK(joined[2].first_column == 8);
}

TEST_CASE("fewer units change the next layer's output by the predicted error, batch norm and all") {
  const bool batch_norm = GENERATE(true, false);
  const bool own_head = GENERATE(true, false);
  const std::size_t layer = GENERATE(0u, 1u, 2u);
  const auto model = make_mlp_model({.batch_norm = batch_norm, .head = own_head});
  const auto dataset = tiny_dataset(kUnitRows);
  const auto statistics = full_statistics(*model, dataset, /*metric=*/false);
  const std::string path = "mlp.layers." + std::to_string(layer);
  const auto next_of = [&](const MlpModel& of) -> nn::Linear {
    return layer < 2 ? of.mlp->layers[layer + 1] : own_head ? of.mlp->head : of.head;
  };
  const auto before = rows_of(*model, *next_of(*model), dataset).output;
  const HiddenUnits order = unit_orders(*model, statistics).at(path);
  for (const int64_t count : {2, 5, 8}) {
    const auto small = factorize(*model, statistics, keep(path, count));
    CHECK(as_mlp(*small).options.hidden[layer] == count);
    const auto after = rows_of(*small, *next_of(as_mlp(*small)), dataset).output;
    const double error = (after - before).square().sum(1).mean().item<double>();
    const double predicted = order.error[static_cast<std::size_t>(count)];
    CHECK(std::abs(error - predicted) < kUnitRounding * order.error[0]);
  }
}

TEST_CASE("all units kept is the model itself") {
  const auto model = make_mlp_model();
  const auto dataset = tiny_dataset(kUnitRows);
  const auto statistics = full_statistics(*model, dataset);
  const auto same = factorize(*model, statistics, {{"mlp.layers.0", {.units = 14}}, {"mlp.layers.1", {.units = 12}}});
  CHECK(largest_difference(predict(*same, dataset), predict(*model, dataset)) < 1e-8);
}

TEST_CASE("the statistics of a reduced model are what one would collect from it") {
  const auto model = make_mlp_model({.batch_norm = GENERATE(true, false), .head = GENERATE(true, false)});
  const auto dataset = tiny_dataset(kUnitRows);
  const auto statistics = full_statistics(*model, dataset);
  const KeptUnits kept = choose_units(*model, statistics, {{"mlp.layers.2", 6}});
  const auto small = factorize(*model, statistics, keep("mlp.layers.2", 6));
  const auto collected = full_statistics(*small, dataset);
  const auto derived = reduced_statistics(statistics, *model, kept);
  CHECK(derived.parameters == collected.parameters);
  CHECK(derived.bytes == collected.bytes);
  CHECK(derived.parameter_bytes == collected.parameter_bytes);
  for (const auto& [path, wanted] : collected.layers) {
    const LayerStatistics& got = derived.layers.at(path);
    CHECK(got.in_features == wanted.in_features);
    CHECK(got.out_features == wanted.out_features);
    if (wanted.is_embedding) continue;
    CHECK(relative_error(got.output[0].covariance(), wanted.output[0].covariance()) < 1e-8);
    CHECK(relative_error(got.output[0].mean(), wanted.output[0].mean()) < 1e-8);
    CHECK(relative_error(got.input.covariance(), wanted.input.covariance()) < 1e-8);
    CHECK(relative_error(got.input_mean, wanted.input_mean) < 1e-8);
    CHECK(got.radius >= 0.999 * wanted.radius / 2.0);
    CHECK(got.metric[0].sizes() == wanted.metric[0].sizes());
  }
}

TEST_CASE("two neighbours may both keep fewer units, and what is left may be factorized") {
  const auto model = make_mlp_model();
  const auto dataset = tiny_dataset(kUnitRows);
  const auto statistics = full_statistics(*model, dataset);
  const RankPlan plan = {{"mlp.layers.0", {.units = 9}},
                         {"mlp.layers.1", {.ranks = {3}, .units = 7}},
                         {"embedding", {.ranks = {3, 3}, .joint = true}}};
  const auto small = factorize(*model, statistics, plan);
  CHECK(as_mlp(*small).options.hidden == std::vector<int64_t>{9, 7, 10});
  CHECK(as_mlp(*small).mlp->layers[1]->down.sizes() == at::IntArrayRef({3, 9}));
  CHECK(as_mlp(*small).mlp->norms[1]->running_mean.numel() == 7);
  CHECK((nn::rank_plan_of(*small) ==
         RankPlan{{"mlp.layers.1", {.ranks = {3}}}, {"embedding", {.ranks = {3, 3}, .joint = true}}}));
  const auto both = torch::stack({predict(*small, dataset), predict(*model, dataset)});
  CHECK(torch::corrcoef(both)[0][1].item<double>() > 0.7);
}

TEST_CASE("units are refused in place, without input moments, out of range and of other layers") {
  const auto model = make_mlp_model();
  const auto dataset = tiny_dataset(kUnitRows);
  const auto statistics = full_statistics(*model, dataset);
  CHECK(message_of<std::invalid_argument>([&] { factorize_(*model, statistics, keep("mlp.layers.0", 3)); }) ==
        "the rank plan of layer 'mlp.layers.0' must keep all units in place: factorize() makes a new model");
  CHECK(message_of<std::invalid_argument>([&] { factorize(*model, statistics, keep("mlp.layers.0", 15)); }) ==
        "the units of layer 'mlp.layers.0' must be in [1, 14], got 15");
  CHECK(message_of<std::invalid_argument>([&] { factorize(*model, statistics, keep("mlp.head", 1)); }) ==
        "layer 'mlp.head' must be a hidden layer to keep fewer units; the hidden layers are: mlp.layers.0, "
        "mlp.layers.1, mlp.layers.2");
  const auto plain = collect_statistics(*model, logits_of(*model, dataset));
  CHECK(message_of<std::invalid_argument>([&] { factorize(*model, plain, keep("mlp.layers.0", 3)); }) ==
        "fewer units of layer 'mlp.layers.0' need input moments (CollectOptions.input_moments)");
}

}  // namespace
}  // namespace afm::testing
