#include "libafm/compress/plan_energy.h"

#include <algorithm>
#include <vector>

#include "libafm/compress/plan_candidate.h"

namespace afm {
namespace {

using Choice = std::vector<Ranks>;  // one per candidate

class SharePlanner {
 public:
  SharePlanner(const Statistics& statistics, const PlanOptions& options, RankPolicy policy)
      : statistics_(statistics), options_(options), policy_(policy), budget_(budget_of(statistics, options)) {
    const StorageRules rules = storage_rules(statistics, options);
    for (const auto& [path, layer] : statistics.layers) {
      if (is_candidate(path, layer, options)) candidates_.emplace_back(path, layer, options, budget_.currency, rules);
    }
  }

  RankPlan run() const {
    if (options_.energy != 0.0) return plan_of(keeping_energy());
    return plan_of(budget_.limits_loss ? within_loss() : within_cost());
  }

 private:
  Choice at(double level) const {
    Choice choice;
    for (const PlanCandidate& candidate : candidates_) {
      choice.push_back(policy_ == RankPolicy::kEnergy ? candidate.for_energy(level) : candidate.for_share(level));
    }
    return choice;
  }

  // Every level at which some ranks change, ascending: between two of them nothing does.
  std::vector<double> levels() const {
    std::vector<double> levels;
    for (const PlanCandidate& candidate : candidates_) {
      const auto own = policy_ == RankPolicy::kEnergy ? candidate.energy_levels() : candidate.share_levels();
      levels.insert(levels.end(), own.begin(), own.end());
    }
    std::ranges::sort(levels);
    levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
    return levels;
  }

  RankPlan plan_of(const Choice& choice) const {
    RankPlan plan;
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      add_to(plan, candidates_[i].path(), layer_plan(candidates_[i].layer(), options_, choice[i]));
    }
    return plan;
  }

  double cost(const Choice& choice) const {
    return amount_of(planned_size(statistics_, plan_of(choice), options_), budget_.currency);
  }

  Choice within_cost() const {
    const Choice dense(candidates_.size());
    if (cost(dense) <= budget_.amount) return dense;
    const std::vector<double> ascending = levels();
    // Cost grows with the level, so the levels that fit come first.
    const auto end =
        std::ranges::partition_point(ascending, [&](double level) { return cost(at(level)) <= budget_.amount; });
    if (end == ascending.begin()) {
      fail_budget(statistics_, options_, cost(ascending.empty() ? dense : at(ascending.front())));
    }
    Choice choice = at(*(end - 1));
    if (policy_ == RankPolicy::kEnergy) spend_rest(choice);
    return choice;
  }

  // Single growths, each time the one that brings most energy per cost.
  void spend_rest(Choice& choice) const {
    for (;;) {
      Choice best;
      double best_rate = 0.0;
      for (std::size_t i = 0; i < candidates_.size(); ++i) {
        for (Growth& growth : candidates_[i].growths(choice[i])) {
          const double rate = growth.energy / std::max(growth.cost, 1.0);
          if (rate <= best_rate) continue;
          Choice larger = choice;
          larger[i] = std::move(growth.ranks);
          if (cost(larger) > budget_.amount) continue;
          best_rate = rate;
          best = std::move(larger);
        }
      }
      if (best_rate == 0.0) return;
      choice = std::move(best);
    }
  }

  // The first level that is good enough; dense when none is.
  template <typename IsTooLow>
  Choice first_level(IsTooLow is_too_low) const {
    const std::vector<double> ascending = levels();
    const auto first = std::ranges::partition_point(ascending, [&](double level) { return is_too_low(at(level)); });
    return first == ascending.end() ? Choice(candidates_.size()) : at(*first);
  }

  Choice within_loss() const {
    return first_level([&](const Choice& choice) {
      return predicted_logloss(statistics_, plan_of(choice), options_.metric_eps) > budget_.amount;
    });
  }

  // Uniform: the smallest share of rank at which every layer keeps that energy.
  Choice keeping_energy() const {
    if (policy_ == RankPolicy::kEnergy) return at(options_.energy);
    return first_level([&](const Choice& choice) {
      for (std::size_t i = 0; i < candidates_.size(); ++i) {
        if (!choice[i].empty() && candidates_[i].kept_energy(choice[i]) < options_.energy) return true;
      }
      return false;
    });
  }

  const Statistics& statistics_;
  const PlanOptions& options_;
  const RankPolicy policy_;
  const Budget budget_;
  std::vector<PlanCandidate> candidates_;
};

}  // namespace

RankPlan plan_by_share(const Statistics& statistics, const PlanOptions& options, RankPolicy policy) {
  return SharePlanner(statistics, options, policy).run();
}

}  // namespace afm
