#pragma once

// Private: statistics that a plan is looked up in.

#include <string>

#include "libafm/compress/statistics.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

// Throws std::invalid_argument that lists the layers there are.
const LayerStatistics& layer_named(const Statistics& statistics, const std::string& path);
// Throws std::invalid_argument unless every layer of the plan is there, with ranks that fit it and all of its units.
void check_plan(const Statistics& statistics, const RankPlan& plan);

}  // namespace afm
