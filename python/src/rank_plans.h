#pragma once

// Rank plans cross the border as plain values; afm.RankPlan (Python) gives them a face.

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "libafm/nn/rank_plan.h"

namespace afm::python {

// Layer -> (ranks, basis, activation), enums by name.
using PlainPlan = std::map<std::string, std::tuple<std::vector<int64_t>, std::string, std::string>>;

RankPlan rank_plan_of(const PlainPlan& plan);
PlainPlan plain_of(const RankPlan& plan);

}  // namespace afm::python
