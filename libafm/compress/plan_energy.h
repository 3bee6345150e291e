#pragma once

// Private: the policies that give every layer the same share, of variance or of rank.

#include "libafm/compress/plan.h"
#include "libafm/compress/plan_budget.h"

namespace afm {

// policy: kEnergy or kUniform. The budget of `options` may be any.
RankPlan plan_by_share(const Statistics& statistics, const PlanOptions& options, RankPolicy policy);

}  // namespace afm
