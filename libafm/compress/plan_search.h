#pragma once

// Private: the cheapest or the least harmful choice of forms for all layers at once.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "libafm/compress/plan.h"
#include "libafm/compress/plan_budget.h"
#include "libafm/compress/plan_tiers.h"

namespace afm {

struct RankLoss {
  std::vector<int64_t> ranks;  // empty: dense
  double loss = 0.0;
};

// A layer with the forms it may take. A table has either forms of the whole or, field by field, losses of its tiers.
struct LayerChoice {
  std::string path;
  const LayerStatistics* layer = nullptr;
  std::vector<RankLoss> forms;                       // the dense one among them
  std::vector<std::vector<TierLosses>> fields = {};  // [F] beside the dense form
};

// Forms of every candidate with predicted losses; needs a metric.
std::vector<LayerChoice> predicted_choices(const Statistics& statistics, const PlanOptions& options);
// The same with measured losses, at about eight ranks each.
std::vector<LayerChoice> measured_choices(const Statistics& statistics, const PlanOptions& options,
                                          const MeasureLoss& measure);

struct PlanFound {
  RankPlan plan;
  double loss = 0.0, cost = 0.0;
};
// Nothing when the budget cannot be reached; `smallest` is then the least cost that can.
std::optional<PlanFound> find_plan(const Statistics& statistics, const PlanOptions& options, const Budget& budget,
                                   const std::vector<LayerChoice>& choices, double& smallest);

}  // namespace afm
