#include "libafm/compress/plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include <fmt/ranges.h>

#include "libafm/compress/plan_candidate.h"
#include "libafm/core/fail.h"

namespace afm {
namespace {

using Candidates = std::vector<PlanCandidate>;
using Choice = std::vector<Ranks>;  // one per candidate

void check_options(const PlanOptions& options) {
  const int budgets = (options.ratio != 0.0) + (options.bytes != 0) + (options.energy != 0.0);
  if (budgets != 1) {
    fail<std::invalid_argument>("PlanOptions must set exactly one of ratio, bytes and energy, got {}", budgets);
  }
  if (options.ratio != 0.0 && !(options.ratio > 1.0 && std::isfinite(options.ratio))) {
    fail<std::invalid_argument>("PlanOptions.ratio must be above 1, got {}", options.ratio);
  }
  if (options.bytes < 0) fail<std::invalid_argument>("PlanOptions.bytes must be above 0, got {}", options.bytes);
  if (options.energy != 0.0 && !(options.energy > 0.0 && options.energy <= 1.0)) {
    fail<std::invalid_argument>("PlanOptions.energy must be in (0, 1], got {}", options.energy);
  }
}

bool is_below(const std::string& path, const std::string& root) { return path == root || path.starts_with(root + "."); }

void check_skip(const Statistics& statistics, const std::vector<std::string>& skip) {
  std::vector<std::string> known = statistics.unreached;
  for (const auto& [path, layer] : statistics.layers) known.push_back(path);
  for (const std::string& root : skip) {
    if (std::ranges::any_of(known, [&](const std::string& path) { return is_below(path, root); })) continue;
    fail<std::invalid_argument>("PlanOptions.skip must name layers or what holds them, got '{}'; the layers are: {}",
                                root, fmt::join(known, ", "));
  }
}

Candidates candidates_of(const Statistics& statistics, const PlanOptions& options) {
  Candidates candidates;
  for (const auto& [path, layer] : statistics.layers) {
    const bool skipped =
        std::ranges::any_of(options.skip, [&path = path](const std::string& root) { return is_below(path, root); });
    const bool is_vector = !layer.is_embedding && std::min(layer.in_features, layer.out_features) == 1;
    if (!skipped && !is_vector) candidates.emplace_back(path, layer, options.basis);
  }
  return candidates;
}

Choice choice_at(const Candidates& candidates, RankPolicy policy, double level) {
  Choice choice;
  for (const PlanCandidate& candidate : candidates) {
    choice.push_back(policy == RankPolicy::kEnergy ? candidate.for_energy(level) : candidate.for_share(level));
  }
  return choice;
}

// Every level at which some ranks change, ascending: between two of them nothing does.
std::vector<double> levels_of(const Candidates& candidates, RankPolicy policy) {
  std::vector<double> levels;
  for (const PlanCandidate& candidate : candidates) {
    const auto own = policy == RankPolicy::kEnergy ? candidate.energy_levels() : candidate.share_levels();
    levels.insert(levels.end(), own.begin(), own.end());
  }
  std::ranges::sort(levels);
  levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
  return levels;
}

int64_t total_parameters(const Statistics& statistics, const Candidates& candidates, const Choice& choice) {
  int64_t parameters = statistics.parameters;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    parameters += candidates[i].parameters(choice[i]) - candidates[i].parameters({});
  }
  return parameters;
}

// Bytes of parameters are spread evenly over them: exact for a model of one dtype.
int64_t parameter_budget(const Statistics& statistics, const PlanOptions& options) {
  const auto parameters = static_cast<double>(statistics.parameters);
  if (options.ratio != 0.0) return static_cast<int64_t>(std::floor(parameters / options.ratio));
  const int64_t buffers = statistics.bytes - statistics.parameter_bytes;
  return static_cast<int64_t>(std::floor(static_cast<double>(options.bytes - buffers) * parameters /
                                         static_cast<double>(statistics.parameter_bytes)));
}

[[noreturn]] void fail_budget(const Statistics& statistics, const PlanOptions& options, int64_t smallest) {
  const double share = static_cast<double>(smallest) / static_cast<double>(statistics.parameters);
  if (options.ratio != 0.0) {
    // Rounded down, so that what is offered can be had.
    fail<std::invalid_argument>("PlanOptions.ratio must be at most {:.2f} for these layers, got {}",
                                std::floor(100.0 / share) / 100.0, options.ratio);
  }
  const double parameter_bytes = std::ceil(share * static_cast<double>(statistics.parameter_bytes));
  fail<std::invalid_argument>("PlanOptions.bytes must be at least {} for these layers, got {}",
                              statistics.bytes - statistics.parameter_bytes + static_cast<int64_t>(parameter_bytes),
                              options.bytes);
}

// Spends `left` parameters on single growths, each time on the one that brings most energy per parameter.
void spend(const Candidates& candidates, Choice& choice, int64_t left) {
  for (;;) {
    Growth best;
    std::size_t grown = 0;
    double best_rate = 0.0;
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      for (Growth& growth : candidates[i].growths(choice[i])) {
        const double rate = growth.energy / static_cast<double>(growth.parameters);
        if (growth.parameters > left || rate <= best_rate) continue;
        best_rate = rate;
        best = std::move(growth);
        grown = i;
      }
    }
    if (best_rate == 0.0) return;
    left -= best.parameters;
    choice[grown] = best.ranks;
  }
}

Choice within_budget(const Statistics& statistics, const Candidates& candidates, const PlanOptions& options) {
  const int64_t budget = parameter_budget(statistics, options);
  if (budget >= statistics.parameters) return Choice(candidates.size());
  const auto parameters_at = [&](double level) {
    return total_parameters(statistics, candidates, choice_at(candidates, options.policy, level));
  };
  const std::vector<double> levels = levels_of(candidates, options.policy);
  // Parameters grow with the level, so the levels that fit come first.
  const auto end = std::ranges::partition_point(levels, [&](double level) { return parameters_at(level) <= budget; });
  if (end == levels.begin()) {
    fail_budget(statistics, options, levels.empty() ? statistics.parameters : parameters_at(levels.front()));
  }
  Choice choice = choice_at(candidates, options.policy, *(end - 1));
  if (options.policy == RankPolicy::kEnergy) {
    spend(candidates, choice, budget - total_parameters(statistics, candidates, choice));
  }
  return choice;
}

// Uniform: the smallest share of rank at which every layer keeps that energy.
Choice keeping_energy(const Candidates& candidates, const PlanOptions& options) {
  if (options.policy == RankPolicy::kEnergy) return choice_at(candidates, options.policy, options.energy);
  const std::vector<double> levels = levels_of(candidates, options.policy);
  const auto first = std::ranges::partition_point(levels, [&](double level) {
    const Choice choice = choice_at(candidates, options.policy, level);
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      if (candidates[i].kept_energy(choice[i]) < options.energy) return true;
    }
    return false;
  });
  if (first == levels.end()) return Choice(candidates.size());
  return choice_at(candidates, options.policy, *first);
}

}  // namespace

RankPlan plan_ranks(const Statistics& statistics, const PlanOptions& options) {
  check_options(options);
  check_skip(statistics, options.skip);
  const Candidates candidates = candidates_of(statistics, options);
  const Choice choice =
      options.energy != 0.0 ? keeping_energy(candidates, options) : within_budget(statistics, candidates, options);
  RankPlan plan;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (choice[i].empty()) continue;
    LayerPlan& layer = plan[candidates[i].path()];
    layer.ranks = choice[i];
    if (candidates[i].is_embedding()) {
      layer.basis = options.basis;
    } else {
      layer.activation = options.activation;
    }
  }
  return plan;
}

}  // namespace afm
