#pragma once

// Rank plans cross the border as the JSON that is also their file; afm.RankPlan (Python) gives them a face.

#include <string>

#include "libafm/nn/rank_plan.h"

namespace afm::python {

// ValueError for what is not a plan: it comes from a caller, not from a file.
RankPlan plan_of_text(const std::string& json);

}  // namespace afm::python
