#include "libafm/compress/plan.h"

#include <optional>

#include "libafm/compress/plan_budget.h"
#include "libafm/compress/plan_energy.h"
#include "libafm/compress/plan_search.h"

namespace afm {
namespace {

RankPlan plan_with(const Statistics& statistics, const PlanOptions& options, const MeasureLoss* measure) {
  check_options(statistics, options, measure != nullptr, /*has_model=*/false);
  const RankPolicy policy = policy_of(statistics, options);
  if (policy == RankPolicy::kEnergy || policy == RankPolicy::kUniform) {
    return plan_by_share(statistics, options, policy);
  }
  const auto choices = policy == RankPolicy::kMeasured ? measured_choices(statistics, options, *measure)
                                                       : predicted_choices(statistics, options);
  double smallest = 0.0;
  const Budget budget = budget_of(statistics, options);
  std::optional<PlanFound> found = find_plan(statistics, options, budget, choices, smallest);
  if (!found) fail_budget(statistics, options, smallest);
  return std::move(found->plan);
}

}  // namespace

RankPlan plan_ranks(const Statistics& statistics, const PlanOptions& options) {
  return plan_with(statistics, options, nullptr);
}

RankPlan plan_ranks(const Statistics& statistics, const PlanOptions& options, const MeasureLoss& measure) {
  return plan_with(statistics, options, &measure);
}

}  // namespace afm
