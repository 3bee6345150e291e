#include "libafm/compress/plan_budget.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include <fmt/ranges.h>

#include "libafm/core/fail.h"
#include "libafm/core/fields.h"

namespace afm {
namespace {

bool is_below(const std::string& path, const std::string& root) { return path == root || path.starts_with(root + "."); }

bool is_skipped(const std::string& path, const PlanOptions& options) {
  return std::ranges::any_of(options.skip, [&](const std::string& root) { return is_below(path, root); });
}

void check_budget(const PlanOptions& options) {
  const int budgets = (options.ratio != 0.0) + (options.bytes != 0) + (options.macs != 0) +
                      (options.predicted_logloss != 0.0) + (options.energy != 0.0);
  if (budgets != 1) {
    fail<std::invalid_argument>(
        "PlanOptions must set exactly one of ratio, bytes, macs, predicted_logloss and energy, got {}", budgets);
  }
  if (options.ratio != 0.0 && !(options.ratio > 1.0 && std::isfinite(options.ratio))) {
    fail<std::invalid_argument>("PlanOptions.ratio must be above 1, got {}", options.ratio);
  }
  if (options.bytes < 0) fail<std::invalid_argument>("PlanOptions.bytes must be above 0, got {}", options.bytes);
  if (options.macs < 0) fail<std::invalid_argument>("PlanOptions.macs must be above 0, got {}", options.macs);
  if (options.predicted_logloss != 0.0 &&
      !(options.predicted_logloss > 0.0 && std::isfinite(options.predicted_logloss))) {
    fail<std::invalid_argument>("PlanOptions.predicted_logloss must be above 0, got {}", options.predicted_logloss);
  }
  if (options.energy != 0.0 && !(options.energy > 0.0 && options.energy <= 1.0)) {
    fail<std::invalid_argument>("PlanOptions.energy must be in (0, 1], got {}", options.energy);
  }
}

void check_paths(const Statistics& statistics, const char* option, const std::vector<std::string>& roots) {
  std::vector<std::string> known = statistics.unreached;
  for (const auto& [path, layer] : statistics.layers) known.push_back(path);
  for (const std::string& root : roots) {
    if (std::ranges::any_of(known, [&](const std::string& path) { return is_below(path, root); })) continue;
    fail<std::invalid_argument>("PlanOptions.{} must name layers or what holds them, got '{}'; the layers are: {}",
                                option, root, fmt::join(known, ", "));
  }
}

void check_forms(const PlanOptions& options) {
  if (options.basis == Basis::kNone) fail<std::invalid_argument>("PlanOptions.basis must be field or shared, got none");
  if (options.joint && options.basis == Basis::kShared) {
    fail<std::invalid_argument>("PlanOptions.joint must be false with a shared basis, got true");
  }
  if (options.tiers < 0) fail<std::invalid_argument>("PlanOptions.tiers must be at least 0, got {}", options.tiers);
  if (options.keep_basis && !options.fold) {
    fail<std::invalid_argument>("PlanOptions.keep_basis must be false without fold, got true");
  }
  if (options.cross_layers < 0) {
    fail<std::invalid_argument>("PlanOptions.cross_layers must be at least 0, got {}", options.cross_layers);
  }
  if (!(options.metric_eps > 0.0 && options.metric_eps <= 1.0)) {
    fail<std::invalid_argument>("PlanOptions.metric_eps must be in (0, 1], got {}", options.metric_eps);
  }
}

void check_policy(const Statistics& statistics, const PlanOptions& options, bool measures, bool has_model) {
  const RankPolicy policy = policy_of(statistics, options);
  const std::string_view name = name_of(policy);
  const bool by_energy = policy == RankPolicy::kEnergy || policy == RankPolicy::kUniform;
  if (options.energy != 0.0 && !by_energy) {
    fail<std::invalid_argument>("PlanOptions.policy must be energy or uniform for a budget in energy, got {}", name);
  }
  const bool needs_metric = policy == RankPolicy::kLoss || options.predicted_logloss != 0.0;
  if (needs_metric && !have_metric(statistics)) {
    fail<std::invalid_argument>(
        "PlanOptions.{} needs statistics with a metric (CollectOptions.metric), these have none",
        policy == RankPolicy::kLoss ? "policy loss" : "predicted_logloss");
  }
  if (policy == RankPolicy::kMeasured && !measures) {
    fail<std::invalid_argument>("PlanOptions.policy measured needs a function that measures the loss of a layer");
  }
  if (policy != RankPolicy::kLoss && options.tiers > 1) {
    fail<std::invalid_argument>("PlanOptions.tiers must be 0 with the policy {}, got {}", name, options.tiers);
  }
  if (policy != RankPolicy::kLoss && options.units) {
    fail<std::invalid_argument>("PlanOptions.units must be false with the policy {}, got true", name);
  }
  if (options.units && !has_model) {
    fail<std::invalid_argument>("PlanOptions.units needs the model: call plan_ranks(model, statistics, options)");
  }
}

}  // namespace

void check_options(const Statistics& statistics, const PlanOptions& options, bool measures, bool has_model) {
  check_budget(options);
  check_forms(options);
  check_paths(statistics, "skip", options.skip);
  check_paths(statistics, "first_layers", options.first_layers);
  check_policy(statistics, options, measures, has_model);
}

bool have_metric(const Statistics& statistics) {
  return !statistics.layers.empty() &&
         std::ranges::all_of(statistics.layers, [](const auto& layer) { return !layer.second.metric.empty(); });
}

RankPolicy policy_of(const Statistics& statistics, const PlanOptions& options) {
  if (options.policy != RankPolicy::kAuto) return options.policy;
  return options.energy == 0.0 && have_metric(statistics) ? RankPolicy::kLoss : RankPolicy::kEnergy;
}

double amount_of(const Size& size, Currency currency) {
  if (currency == Currency::kParameters) return size.parameters;
  return currency == Currency::kBytes ? size.bytes : size.macs;
}

double amount_of(const PlanSize& size, Currency currency) {
  return amount_of(
      Size{static_cast<double>(size.parameters), static_cast<double>(size.bytes), static_cast<double>(size.macs)},
      currency);
}

Budget budget_of(const Statistics& statistics, const PlanOptions& options) {
  if (options.bytes != 0) return {Currency::kBytes, static_cast<double>(options.bytes)};
  if (options.macs != 0) return {Currency::kMacs, static_cast<double>(options.macs)};
  if (options.predicted_logloss != 0.0) return {Currency::kBytes, options.predicted_logloss, true};
  if (options.ratio == 0.0) return {};
  return {Currency::kParameters, std::floor(static_cast<double>(statistics.parameters) / options.ratio)};
}

void fail_budget(const Statistics& statistics, const PlanOptions& options, double smallest) {
  if (options.ratio != 0.0) {
    // Rounded down, so that what is offered can be had.
    const double best = static_cast<double>(statistics.parameters) / smallest;
    fail<std::invalid_argument>("PlanOptions.ratio must be at most {:.2f} for these layers, got {}",
                                std::floor(100.0 * best) / 100.0, options.ratio);
  }
  const bool in_macs = options.macs != 0;
  fail<std::invalid_argument>("PlanOptions.{} must be at least {:.0f} for these layers, got {}",
                              in_macs ? "macs" : "bytes", smallest, in_macs ? options.macs : options.bytes);
}

bool is_candidate(const std::string& path, const LayerStatistics& layer, const PlanOptions& options) {
  const bool is_vector = !layer.is_embedding && std::min(layer.in_features, layer.out_features) == 1;
  return !is_vector && !is_skipped(path, options);
}

LayerPlan form_of(const LayerStatistics& layer, const PlanOptions& options) {
  if (!layer.is_embedding) {
    return {.activation = options.activation, .bits = options.mlp_bits, .scale = options.mlp_scale};
  }
  return {.basis = options.basis,
          .joint = options.joint && layer.wide,
          .bits = options.embedding_bits,
          .scale = options.embedding_scale};
}

LayerPlan layer_plan(const LayerStatistics& layer, const PlanOptions& options, std::vector<int64_t> ranks) {
  LayerPlan plan = form_of(layer, options);
  if (plan.bits == Bits::kFloat) plan.scale = ScaleBy::kRow;
  if (ranks.empty()) return {.bits = plan.bits, .scale = plan.scale};
  plan.ranks = std::move(ranks);
  return plan;
}

void add_to(RankPlan& plan, const std::string& path, LayerPlan layer) {
  if (!layer.ranks.empty() || layer.bits != Bits::kFloat) plan[path] = std::move(layer);
}

}  // namespace afm
