#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "libafm/compress/hidden_units.h"
#include "libafm/compress/plan.h"
#include "libafm/compress/plan_budget.h"
#include "libafm/compress/plan_search.h"

namespace afm {
namespace {

using Counts = std::map<std::string, int64_t>;  // hidden layer -> units

class UnitPlanner {
 public:
  UnitPlanner(torch::nn::Module& model, const Statistics& statistics, const PlanOptions& options)
      : model_(model), statistics_(statistics), options_(options), budget_(budget_of(statistics, options)) {
    for (auto& [path, order] : unit_orders(model, statistics)) {
      const auto layer = statistics.layers.find(path);
      if (layer != statistics.layers.end() && is_candidate(path, layer->second, options)) orders_[path] = order;
    }
  }

  RankPlan run() {
    for (const double share : {1.0, 0.5, 0.25, 0.125}) {
      Counts counts;
      for (const auto& [path, order] : orders_) counts[path] = units_at(path, share);
      consider(counts);
    }
    // Each layer once by itself around the best common share.
    for (const auto& [path, order] : orders_) {
      for (const double change : {0.5, 2.0, 0.7, 1.4}) {
        Counts counts = best_counts_;
        const auto units = static_cast<double>(counts[path]) * change;
        counts[path] = std::clamp(std::llround(units), 1LL, static_cast<long long>(order.order.size()));
        if (best_ && counts != best_counts_) consider(counts);
      }
    }
    if (!best_) fail_budget(statistics_, options_, smallest_);
    for (const auto& [path, count] : best_counts_) {
      if (count < width(path)) best_->plan[path].units = count;
    }
    return std::move(best_->plan);
  }

 private:
  int64_t width(const std::string& path) const { return static_cast<int64_t>(orders_.at(path).order.size()); }

  int64_t units_at(const std::string& path, double share) const {
    return std::max<int64_t>(1, std::llround(share * static_cast<double>(width(path))));
  }

  void consider(const Counts& counts) {
    double loss = 0.0;
    Counts fewer;
    for (const auto& [path, count] : counts) {
      if (count == width(path)) continue;
      fewer[path] = count;
      loss += 0.5 * orders_.at(path).error[static_cast<std::size_t>(count)];
    }
    Budget budget = budget_;
    if (budget.limits_loss) budget.amount -= loss;
    if (budget.limits_loss && budget.amount < 0.0) return;
    const Statistics reduced =
        fewer.empty() ? statistics_ : reduced_statistics(statistics_, model_, choose_units(model_, statistics_, fewer));
    double smallest = std::numeric_limits<double>::infinity();
    auto found = find_plan(reduced, options_, budget, predicted_choices(reduced, options_), smallest);
    smallest_ = std::min(smallest_, smallest);
    if (!found) return;
    found->loss += loss;
    const bool better = !best_ || (budget.limits_loss ? found->cost < best_->cost : found->loss < best_->loss);
    if (!better) return;
    best_ = std::move(found);
    best_counts_ = counts;
  }

  torch::nn::Module& model_;
  const Statistics& statistics_;
  const PlanOptions& options_;
  const Budget budget_;
  std::map<std::string, HiddenUnits> orders_;
  std::optional<PlanFound> best_;
  Counts best_counts_;
  double smallest_ = std::numeric_limits<double>::infinity();
};

}  // namespace

RankPlan plan_ranks(torch::nn::Module& model, const Statistics& statistics, const PlanOptions& options) {
  if (!options.units) return plan_ranks(statistics, options);
  check_options(statistics, options, /*measures=*/false, /*has_model=*/true);
  return UnitPlanner(model, statistics, options).run();
}

}  // namespace afm
