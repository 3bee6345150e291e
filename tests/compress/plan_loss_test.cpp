#include <cmath>
#include <limits>
#include <map>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "libafm/compress/plan.h"
#include "tests/compress/planned_layers.h"
#include "tests/core/temporary_folder.h"

namespace afm::testing {
namespace {

constexpr double kSumRounding = 1e-9;  // relative, of sums of losses

// Two fields, what reads them, and a hidden layer: 4 x 3 x 8 x 7 plans with the dense forms.
Statistics tiny_statistics(int64_t seed) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  auto table = random_table({40, 9}, 2, 1.0);
  auto first = linear_layer(6, 9, 0.3);
  for (int64_t j = 0; j < 2; ++j) {
    first.input_mean.narrow(0, 2 * j, 2).copy_(table.output[static_cast<std::size_t>(j)].mean());
  }
  return statistics_of({{"embedding", table}, {"first", first}, {"second", linear_layer(9, 6, 0.2)}});
}

// Fields enough and layers enough for a step to be small.
Statistics larger_statistics(int64_t seed = 1) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  auto table = random_table({600, 50, 9, 200, 2}, 6, 1.0);
  auto first = linear_layer(5 * 6 + 3, 40, 0.01, 0.9);
  for (int64_t j = 0; j < 5; ++j) {
    first.input_mean.narrow(0, 6 * j, 6).copy_(table.output[static_cast<std::size_t>(j)].mean());
  }
  return statistics_of({{"embedding", table},
                        {"mlp.0", first},
                        {"mlp.1", linear_layer(40, 32, 0.01, 0.9)},
                        {"mlp.2", linear_layer(32, 24, 0.01, 0.8)},
                        {"head", linear_layer(24, 1, 0.01)}});
}

// Every plan of the tiny statistics without tiers.
std::vector<RankPlan> all_plans(const Statistics& statistics, const PlanOptions& options) {
  std::vector<RankPlan> plans = {{}};
  for (const auto& [path, layer] : statistics.layers) {
    std::vector<LayerPlan> forms = {{.bits = options.mlp_bits}};
    if (layer.is_embedding) {
      forms[0].bits = options.embedding_bits;
      const int64_t most = layer.embedding_dim + (options.joint ? 1 : 0);
      for (int64_t a = 0; a <= most; ++a) {
        for (int64_t b = 0; b <= most; ++b) {
          forms.push_back({.ranks = {a, b}, .joint = options.joint, .bits = options.embedding_bits});
        }
      }
    } else {
      for (int64_t k = 0; k <= std::min(layer.in_features, layer.out_features); ++k) {
        forms.push_back({.ranks = {k}, .bits = options.mlp_bits});
      }
    }
    std::vector<RankPlan> longer;
    for (const RankPlan& plan : plans) {
      for (const LayerPlan& form : forms) {
        longer.push_back(plan);
        if (!form.ranks.empty() || form.bits != Bits::kFloat) longer.back()[path] = form;
      }
    }
    plans = std::move(longer);
  }
  return plans;
}

struct Sized {
  double loss = 0.0;
  PlanSize size;
};

std::vector<Sized> sized_plans(const Statistics& statistics, const PlanOptions& options) {
  // Losses add up over layers, so each form of each layer is measured once.
  std::map<std::pair<std::string, std::string>, double> losses;
  std::vector<Sized> sized;
  for (const RankPlan& plan : all_plans(statistics, options)) {
    Sized& one = sized.emplace_back();
    for (const auto& [path, layer] : plan) {
      const RankPlan alone = {{path, layer}};
      const auto [known, is_new] = losses.try_emplace({path, plan_to_json(alone)}, 0.0);
      if (is_new) known->second = predicted_logloss(statistics, alone);
      one.loss += known->second;
    }
    one.size = planned_size(statistics, plan, options);
  }
  return sized;
}

TEST_CASE("the loss policy finds the best plan of all within any budget") {
  const auto seed = GENERATE(range(0, 2));
  const PlanOptions form = GENERATE(PlanOptions{}, PlanOptions{.joint = true}, PlanOptions{.joint = true, .fold = true},
                                    PlanOptions{.fold = true, .keep_basis = true, .cross_layers = 2},
                                    PlanOptions{.joint = true, .embedding_bits = Bits::kInt4, .mlp_bits = Bits::kInt8});
  const auto statistics = tiny_statistics(seed);
  const auto sized = sized_plans(statistics, form);
  const auto best_within = [&](auto fits) {
    double best = std::numeric_limits<double>::infinity();
    for (const Sized& one : sized) {
      if (fits(one)) best = std::min(best, one.loss);
    }
    return best;
  };
  const auto least = [&](auto value) { return std::ranges::min(sized, {}, value); };
  const auto check = [&](PlanOptions options, auto fits) {
    const RankPlan plan = plan_ranks(statistics, options);
    INFO(plan_to_json(plan));
    CHECK(fits(Sized{0.0, planned_size(statistics, plan, options)}));
    const double best = best_within(fits);
    CHECK(std::abs(predicted_logloss(statistics, plan) - best) <= kSumRounding * (1.0 + best));
  };
  const int64_t fewest = least([](const Sized& one) { return one.size.bytes; }).size.bytes;
  for (const double share : {0.0, 0.1, 0.3, 0.5, 0.8}) {
    PlanOptions options = form;
    options.bytes = fewest + static_cast<int64_t>(share * static_cast<double>(statistics.bytes - fewest));
    check(options, [&](const Sized& one) { return one.size.bytes <= options.bytes; });
  }
  const int64_t fewest_macs = least([](const Sized& one) { return one.size.macs; }).size.macs;
  for (const int64_t more : {3, 20, 50}) {
    PlanOptions options = form;
    options.macs = fewest_macs + more;
    check(options, [&](const Sized& one) { return one.size.macs <= options.macs; });
  }
  for (const double share : {0.02, 0.1, 0.4}) {
    PlanOptions options = form;
    options.predicted_logloss = share * least([](const Sized& one) { return -one.loss; }).loss;
    const RankPlan plan = plan_ranks(statistics, options);
    CHECK(predicted_logloss(statistics, plan) <= options.predicted_logloss * (1.0 + kSumRounding));
    int64_t best = std::numeric_limits<int64_t>::max();
    for (const Sized& one : sized) {
      if (one.loss <= options.predicted_logloss) best = std::min(best, one.size.bytes);
    }
    CHECK(planned_size(statistics, plan, options).bytes <= best + (form.embedding_bits == Bits::kFloat ? 0 : 2));
  }
}

TEST_CASE("the predicted loss falls with the budget, which is met from below within a step") {
  const PlanOptions form = GENERATE(PlanOptions{}, PlanOptions{.basis = Basis::kShared},
                                    PlanOptions{.joint = true, .tiers = 4, .fold = true},
                                    PlanOptions{.joint = true,
                                                .tiers = 4,
                                                .embedding_bits = Bits::kInt4,
                                                .mlp_bits = Bits::kInt8,
                                                .embedding_scale = ScaleBy::kColumn});
  const auto statistics = larger_statistics();
  double before = std::numeric_limits<double>::infinity();
  int64_t largest_step = 0;
  for (const auto& [path, layer] : statistics.layers) {
    for (const int64_t ids : layer.cardinalities) largest_step = std::max(largest_step, 4 * ids);
  }
  for (double bytes = 0.12; bytes < 0.9; bytes *= 1.25) {
    PlanOptions options = form;
    options.bytes = static_cast<int64_t>(bytes * static_cast<double>(statistics.bytes));
    const RankPlan plan = plan_ranks(statistics, options);
    const int64_t used = planned_size(statistics, plan, options).bytes;
    CHECK(used <= options.bytes);
    const double loss = predicted_logloss(statistics, plan);
    if (loss > 0.0) CHECK(used > options.bytes - largest_step);
    CHECK(loss <= before * (1.0 + 1e-3));
    before = loss;
  }
}

TEST_CASE("joint tables, tiers and a shared basis serve the same budget better or worse, as they should") {
  const auto statistics = larger_statistics();
  const auto loss_of = [&](PlanOptions options) {
    options.ratio = 6.0;
    return predicted_logloss(statistics, plan_ranks(statistics, options));
  };
  const double plain = loss_of({}), joint = loss_of({.joint = true});
  CHECK(joint < plain);
  CHECK(loss_of({.joint = true, .tiers = 4}) < joint);
  CHECK(loss_of({.basis = Basis::kShared}) > plain);
  CHECK(loss_of({.joint = true, .fold = true}) < joint);
  CHECK(loss_of({.joint = true, .fold = true, .keep_basis = true}) >= loss_of({.joint = true, .fold = true}));
}

TEST_CASE("the loss policy predicts less loss than energy and uniform at the same size") {
  const auto statistics = larger_statistics();
  const double ratio = GENERATE(2.0, 3.5);
  const auto loss_of = [&](RankPolicy policy) {
    const auto plan = plan_ranks(statistics, {.ratio = ratio, .policy = policy});
    return predicted_logloss(statistics, plan);
  };
  CHECK(loss_of(RankPolicy::kLoss) < loss_of(RankPolicy::kEnergy));
  CHECK(loss_of(RankPolicy::kLoss) < loss_of(RankPolicy::kUniform));
  CHECK((plan_ranks(statistics, {.ratio = ratio}) ==
         plan_ranks(statistics, {.ratio = ratio, .policy = RankPolicy::kLoss})));
}

TEST_CASE("energy and uniform obey every budget, and know joint tables and integers") {
  const auto policy = GENERATE(RankPolicy::kEnergy, RankPolicy::kUniform);
  const auto statistics = larger_statistics();
  PlanOptions options = {.policy = policy, .joint = true, .embedding_bits = Bits::kInt8, .mlp_bits = Bits::kInt4};
  options.bytes = statistics.bytes / 8;
  const auto plan = plan_ranks(statistics, options);
  CHECK(planned_size(statistics, plan).bytes <= options.bytes);
  CHECK(plan.at("embedding").joint);
  CHECK(plan.at("embedding").bits == Bits::kInt8);
  CHECK(plan.at("mlp.1").bits == Bits::kInt4);
  CHECK_FALSE(plan.contains("head"));
  const auto macs = planned_size(statistics, {}).macs / 2;
  CHECK(planned_size(statistics, plan_ranks(statistics, {.macs = macs, .policy = policy})).macs <= macs);
  const auto gentle = plan_ranks(statistics, {.predicted_logloss = 0.01, .policy = policy});
  CHECK(predicted_logloss(statistics, gentle) <= 0.01);
  CHECK(planned_size(statistics, gentle).bytes < statistics.bytes);
}

TEST_CASE("a budget that is met already changes nothing but the storage of integers") {
  const auto statistics = larger_statistics();
  CHECK(plan_ranks(statistics, {.bytes = statistics.bytes}).empty());
  const auto plan = plan_ranks(statistics, {.bytes = statistics.bytes, .mlp_bits = Bits::kInt8});
  const LayerPlan integers = {.bits = Bits::kInt8};
  CHECK((plan == RankPlan{{"mlp.0", integers}, {"mlp.1", integers}, {"mlp.2", integers}}));
}

TEST_CASE("a plan for 39 fields, a million ids and three wide layers meets its bytes without looking at single ids") {
  torch::manual_seed(4);
  std::vector<int64_t> cardinalities;
  for (int64_t j = 0; j < 39; ++j) cardinalities.push_back(j < 4 ? 20000 : 4 + 13 * j);
  auto table = random_table(cardinalities, 16, 1.0);
  table.id_counts.clear();  // planning must not look at single ids
  // Each of them stands for twelve alike.
  for (std::size_t j = 0; j < table.cardinalities.size(); ++j) {
    table.cardinalities[j] *= 12;
    for (IdBlock& block : table.id_blocks[j]) block.begin *= 12, block.end *= 12;
  }
  auto first = linear_layer(39 * 16, 400, 1e-4, 0.97);
  for (int64_t j = 0; j < 39; ++j) {
    first.input_mean.narrow(0, 16 * j, 16).copy_(table.output[static_cast<std::size_t>(j)].mean());
  }
  const auto statistics = statistics_of({{"embedding", table},
                                         {"mlp.layers.0", first},
                                         {"mlp.layers.1", linear_layer(400, 400, 1e-4, 0.97)},
                                         {"mlp.layers.2", linear_layer(400, 400, 1e-4, 0.97)}});
  const PlanOptions options = {.bytes = statistics.bytes / 30,
                               .joint = true,
                               .tiers = 6,
                               .embedding_bits = Bits::kInt4,
                               .mlp_bits = Bits::kInt8,
                               .fold = true,
                               .keep_basis = true};
  const auto plan = plan_ranks(statistics, options);
  const int64_t bytes = planned_size(statistics, plan, options).bytes;
  CHECK(bytes <= options.bytes);
  CHECK(static_cast<double>(bytes) > 0.999 * static_cast<double>(options.bytes));
}

TEST_CASE("measured losses decide where they are given") {
  const auto statistics = larger_statistics();
  std::map<std::string, int> calls;
  const auto measure = [&](const std::string& layer, const LayerPlan& plan) {
    ++calls[layer];
    // mlp.1 does not matter, whatever its spectrum says.
    return layer == "mlp.1" ? 0.0 : predicted_logloss(statistics, {{layer, plan}});
  };
  const PlanOptions options = {.ratio = 3.0, .policy = RankPolicy::kMeasured};
  const auto plan = plan_ranks(statistics, options, measure);
  CHECK(planned_size(statistics, plan).parameters <= statistics.parameters / 3);
  CHECK(plan.at("mlp.1").ranks == std::vector<int64_t>{0});
  CHECK(calls.size() == 4);
  for (const auto& [layer, count] : calls) CHECK(count <= 8);
}

TEST_CASE("unreachable budgets say what can be had, and that can be had") {
  const auto statistics = larger_statistics();
  const auto refusal = [&](const PlanOptions& options) {
    return message_of<std::invalid_argument>([&] { plan_ranks(statistics, options); });
  };
  const auto number_in = [](const std::string& text, const std::string& before) {
    REQUIRE(text.starts_with(before));
    return std::stod(text.substr(before.size()));
  };
  const PlanOptions form = GENERATE(PlanOptions{.joint = true, .fold = true},
                                    PlanOptions{.embedding_bits = Bits::kInt4, .mlp_bits = Bits::kInt4});
  PlanOptions options = form;
  options.bytes = 10;
  options.bytes = static_cast<int64_t>(number_in(refusal(options), "PlanOptions.bytes must be at least "));
  CHECK(refusal(options).empty());
  options.bytes -= 1;
  CHECK_FALSE(refusal(options).empty());
  options = form;
  options.macs = 3;
  options.macs = static_cast<int64_t>(number_in(refusal(options), "PlanOptions.macs must be at least "));
  CHECK(refusal(options).empty());
  options = form;
  options.ratio = 1e6;
  options.ratio = number_in(refusal(options), "PlanOptions.ratio must be at most ");
  CHECK(refusal(options).empty());
  options.ratio += 0.02;
  CHECK_FALSE(refusal(options).empty());
}

TEST_CASE("plan_ranks refuses what does not go together") {
  auto statistics = larger_statistics();
  const auto refusal = [&](const PlanOptions& options) {
    return message_of<std::invalid_argument>([&] { plan_ranks(statistics, options); });
  };
  CHECK(refusal({.ratio = 2.0, .basis = Basis::kNone}) == "PlanOptions.basis must be field or shared, got none");
  CHECK(refusal({.ratio = 2.0, .basis = Basis::kShared, .joint = true}) ==
        "PlanOptions.joint must be false with a shared basis, got true");
  CHECK(refusal({.ratio = 2.0, .tiers = -1}) == "PlanOptions.tiers must be at least 0, got -1");
  CHECK(refusal({.ratio = 2.0, .keep_basis = true}) == "PlanOptions.keep_basis must be false without fold, got true");
  CHECK(refusal({.ratio = 2.0, .cross_layers = -2}) == "PlanOptions.cross_layers must be at least 0, got -2");
  CHECK(refusal({.ratio = 2.0, .metric_eps = 0.0}) == "PlanOptions.metric_eps must be in (0, 1], got 0");
  CHECK(refusal({.macs = -1}) == "PlanOptions.macs must be above 0, got -1");
  CHECK(refusal({.predicted_logloss = -0.5}) == "PlanOptions.predicted_logloss must be above 0, got -0.5");
  CHECK(refusal({.energy = 0.5, .policy = RankPolicy::kLoss}) ==
        "PlanOptions.policy must be energy or uniform for a budget in energy, got loss");
  CHECK(refusal({.ratio = 2.0, .policy = RankPolicy::kEnergy, .tiers = 3}) ==
        "PlanOptions.tiers must be 0 with the policy energy, got 3");
  CHECK(refusal({.ratio = 2.0, .policy = RankPolicy::kUniform, .units = true}) ==
        "PlanOptions.units must be false with the policy uniform, got true");
  CHECK(refusal({.ratio = 2.0, .units = true}) ==
        "PlanOptions.units needs the model: call plan_ranks(model, statistics, options)");
  CHECK(refusal({.ratio = 2.0, .policy = RankPolicy::kMeasured}) ==
        "PlanOptions.policy measured needs a function that measures the loss of a layer");
  CHECK(refusal({.ratio = 2.0, .fold = true, .first_layers = {"mlp.9"}}) ==
        "PlanOptions.first_layers must name layers or what holds them, got 'mlp.9'; the layers are: embedding, head, "
        "mlp.0, mlp.1, mlp.2");
  for (auto& [path, layer] : statistics.layers) layer.metric.clear();
  CHECK(refusal({.ratio = 2.0, .policy = RankPolicy::kLoss}) ==
        "PlanOptions.policy loss needs statistics with a metric (CollectOptions.metric), these have none");
  CHECK(refusal({.predicted_logloss = 0.1}) ==
        "PlanOptions.predicted_logloss needs statistics with a metric (CollectOptions.metric), these have none");
  CHECK(refusal({.ratio = 2.0}).empty());
}

}  // namespace
}  // namespace afm::testing
