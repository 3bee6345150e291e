#pragma once

// Private: what PlanOptions ask for, checked, and what a layer may become under them.

#include <cstdint>
#include <string>
#include <vector>

#include "libafm/compress/plan.h"
#include "libafm/compress/plan_costs.h"

namespace afm {

// Throws std::invalid_argument for an option that breaks a rule. `measures`: a MeasureLoss is there.
void check_options(const Statistics& statistics, const PlanOptions& options, bool measures, bool has_model);

RankPolicy policy_of(const Statistics& statistics, const PlanOptions& options);  // never kAuto
bool have_metric(const Statistics& statistics);

enum class Currency { kParameters, kBytes, kMacs };
double amount_of(const Size& size, Currency currency);
double amount_of(const PlanSize& size, Currency currency);

// The most that the model may cost after the plan or, with `limits_loss`, the most that it may lose (then the cheapest
// plan is wanted).
struct Budget {
  Currency currency = Currency::kParameters;
  double amount = 0.0;
  bool limits_loss = false;
};
// Of a ratio, bytes, macs or predicted_logloss; an energy has none.
Budget budget_of(const Statistics& statistics, const PlanOptions& options);
// Throws std::invalid_argument: what the budget must be at least (a ratio at most), given the smallest cost there is.
[[noreturn]] void fail_budget(const Statistics& statistics, const PlanOptions& options, double smallest);

// Not skipped, and not a linear layer with one input or one output.
bool is_candidate(const std::string& path, const LayerStatistics& layer, const PlanOptions& options);
// The form of a layer but for its ranks and tiers.
LayerPlan form_of(const LayerStatistics& layer, const PlanOptions& options);
// The same with these ranks; empty: dense, which knows neither basis nor activation.
LayerPlan layer_plan(const LayerStatistics& layer, const PlanOptions& options, std::vector<int64_t> ranks);
// Adds it to the plan unless it is a dense layer of floats.
void add_to(RankPlan& plan, const std::string& path, LayerPlan layer);

}  // namespace afm
