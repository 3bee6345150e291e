#include "libafm/compress/plan_search.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "libafm/compress/plan_evaluate.h"

namespace afm {
namespace {

constexpr double kGridGrowth = 1.3;    // from one tried rank to the next
constexpr int kRounds = 3;             // over all layers with fixed forms
constexpr int kCorrections = 20;       // of a modelled cost to the exact one
constexpr double kSmallestCost = 0.5;  // a code of int4 in bytes

bool is_better(const Evaluation& a, const Evaluation& b, bool limits_loss) {
  if (a.within != b.within) return a.within;
  const bool by_cost = !a.within || limits_loss;
  const auto key = [by_cost](const Evaluation& e) {
    return by_cost ? std::pair(e.cost, e.loss) : std::pair(e.loss, e.cost);
  };
  return key(a) < key(b);
}

// The dense form 0 and forms at growing distances, the last among them.
std::vector<std::size_t> grid(std::size_t forms) {
  std::vector<std::size_t> tried;
  for (double f = 0.0; f < static_cast<double>(forms); f = std::max(f + 1.0, std::floor(f * kGridGrowth))) {
    tried.push_back(static_cast<std::size_t>(f));
  }
  if (tried.back() + 1 < forms) tried.push_back(forms - 1);
  return tried;
}

class Search {
 public:
  Search(const Evaluator& evaluator, const std::vector<LayerChoice>& choices, const Budget& budget)
      : evaluator_(evaluator), choices_(choices), budget_(budget) {}

  // Tries every table dense and not, and for each the forms of their readers.
  Fixed run() {
    Fixed all_dense;
    try_tables({});
    for (std::size_t c = 0; c < choices_.size(); ++c) {
      if (!choices_[c].layer->is_embedding) continue;
      try_tables({{c, 0}});
      all_dense[c] = 0;
    }
    if (all_dense.size() > 1) try_tables(all_dense);
    return best_fixed_;
  }

 private:
  void try_tables(Fixed fixed) {
    std::vector<std::size_t> readers;
    for (const std::size_t reader : evaluator_.readers()) {
      if (fixed.contains(evaluator_.table_of(reader))) continue;
      readers.push_back(reader);
      fixed[reader] = 0;
    }
    Evaluation now = evaluator_.evaluate(fixed, budget_, /*with_plan=*/false);
    bool improved = true;
    for (int round = 0; improved && round < kRounds; ++round) {
      improved = false;
      for (const std::size_t reader : readers) improved |= improve(fixed, now, reader);
      if (readers.size() < 2) break;
    }
    if (has_best_ && !is_better(now, best_, budget_.limits_loss)) return;
    has_best_ = true;
    best_ = std::move(now);
    best_fixed_ = std::move(fixed);
  }

  // The best form of one reader: on a grid, then between its neighbours there.
  bool improve(Fixed& fixed, Evaluation& now, std::size_t reader) const {
    const std::size_t forms = choices_[reader].forms.size(), before = fixed[reader];
    const auto consider = [&](std::size_t form) {
      if (form == fixed[reader] || form >= forms) return;
      Fixed other = fixed;
      other[reader] = form;
      Evaluation found = evaluator_.evaluate(other, budget_, /*with_plan=*/false);
      if (!is_better(found, now, budget_.limits_loss)) return;
      now = std::move(found);
      fixed = std::move(other);
    };
    for (const std::size_t form : grid(forms)) consider(form);
    const auto gap = static_cast<double>(fixed[reader]) * (kGridGrowth - 1.0);
    for (auto step = static_cast<std::size_t>(gap); step > 0; step /= 2) {
      const std::size_t centre = fixed[reader];
      consider(centre + step);
      if (centre > step) consider(centre - step);
    }
    return fixed[reader] != before;
  }

  const Evaluator& evaluator_;
  const std::vector<LayerChoice>& choices_;
  const Budget budget_;
  bool has_best_ = false;
  Evaluation best_;
  Fixed best_fixed_;
};

}  // namespace

std::optional<PlanFound> find_plan(const Statistics& statistics, const PlanOptions& options, const Budget& budget,
                                   const std::vector<LayerChoice>& choices, double& smallest) {
  const Evaluator evaluator(statistics, options, choices);
  const Fixed fixed = Search(evaluator, choices, budget).run();
  const auto exact_cost = [&](const RankPlan& plan) {
    return amount_of(planned_size(statistics, plan, options), budget.currency);
  };
  std::optional<PlanFound> best;
  Budget allowed = budget;
  // What int4 rounds up to bytes and a shared basis are known only of a whole plan.
  for (int round = 0; round < kCorrections; ++round) {
    Evaluation found = evaluator.evaluate(fixed, allowed, /*with_plan=*/true);
    const double cost = exact_cost(found.plan), over = cost - budget.amount;
    if (budget.limits_loss) return PlanFound{std::move(found.plan), found.loss, cost};
    if (over > 0.0) {
      if (best) break;
      smallest = cost;
      if (!found.within) break;
      allowed.amount = std::min(allowed.amount, found.cost) - std::max(kSmallestCost / 2.0, over / 2.0);
      continue;
    }
    const double affordable = budget.amount + found.cost - cost;
    if (!best || found.loss < best->loss) best = PlanFound{std::move(found.plan), found.loss, cost};
    if (affordable <= allowed.amount) break;
    allowed.amount = affordable;
  }
  return best;
}

}  // namespace afm
