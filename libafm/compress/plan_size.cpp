#include <cmath>
#include <map>
#include <numeric>
#include <stdexcept>

#include <fmt/ranges.h>

#include "libafm/compress/check_plan.h"
#include "libafm/compress/plan.h"
#include "libafm/compress/plan_budget.h"
#include "libafm/compress/plan_costs.h"
#include "libafm/compress/plan_curves.h"
#include "libafm/core/fail.h"

namespace afm {
namespace {

// What folding does to the layers that are no embeddings.
struct FoldedReaders {
  std::map<std::string, int64_t> inputs_gone;
  Size cross;  // change of the size of cross networks
};

FoldedReaders folded_readers(const Statistics& statistics, const RankPlan& plan, const PlanOptions& folding,
                             const StorageRules& rules) {
  FoldedReaders readers;
  for (const auto& [path, table] : plan) {
    const LayerStatistics& layer = statistics.layers.at(path);
    if (!layer.is_embedding || table.ranks.empty() || !rules_for(table, rules).fold) continue;
    const int64_t width = std::accumulate(table.ranks.begin(), table.ranks.end(), int64_t{0});
    const int64_t fewer = static_cast<int64_t>(table.ranks.size()) * layer.embedding_dim - width;
    for (const std::string& reader : first_layers_of(statistics, layer, folding)) {
      readers.inputs_gone[reader] += fewer;
    }
    readers.cross += folded_cross_change(statistics, layer, folding, static_cast<double>(width), rules);
  }
  return readers;
}

}  // namespace

PlanSize planned_size(const Statistics& statistics, const RankPlan& plan, const PlanOptions& folding) {
  check_plan(statistics, plan);
  const StorageRules rules = storage_rules(statistics, folding);
  const FoldedReaders readers = folded_readers(statistics, plan, folding, rules);
  const std::map<std::string, int64_t>& gone = readers.inputs_gone;
  Size size = dense_size(statistics) + readers.cross;
  for (const auto& [path, layer] : statistics.layers) {
    const auto planned = plan.find(path);
    const auto fewer = gone.find(path);
    if (planned == plan.end() && fewer == gone.end()) continue;
    const LayerPlan form = planned == plan.end() ? LayerPlan() : planned->second;
    const int64_t inputs = layer.in_features - (fewer == gone.end() ? 0 : fewer->second);
    const Size after = layer.is_embedding ? table_size(layer, form, rules)
                                          : linear_size(layer, form, static_cast<double>(inputs), rules);
    size += after - layer_size(layer, LayerPlan(), rules);
  }
  return {std::llround(size.parameters), std::llround(size.bytes), std::llround(size.macs)};
}

int64_t planned_parameters(const Statistics& statistics, const RankPlan& plan) {
  return planned_size(statistics, plan).parameters;
}

double predicted_logloss(const Statistics& statistics, const RankPlan& plan, double metric_eps) {
  check_plan(statistics, plan);
  double loss = 0.0;
  for (const auto& [path, layer_plan] : plan) {
    loss += layer_loss(statistics.layers.at(path), layer_plan, metric_eps);
  }
  return loss;
}

}  // namespace afm
