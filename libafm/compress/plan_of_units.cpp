#include <map>
#include <string>

#include "libafm/compress/hidden_units.h"
#include "libafm/compress/plan.h"

namespace afm {
namespace {

// A plan apart from its units, with the statistics of the model that has them and what each hidden layer loses by them.
struct PlanOfUnits {
  PlanOfUnits(torch::nn::Module& model, const Statistics& statistics, const RankPlan& whole) : ranks(whole) {
    std::map<std::string, int64_t> counts;
    for (auto& [path, layer] : ranks) {
      if (layer.units > 0) counts[path] = layer.units;
      layer.units = 0;
    }
    std::erase_if(ranks, [](const auto& item) { return item.second == LayerPlan(); });
    if (counts.empty()) {
      reduced = statistics;
      return;
    }
    reduced = reduced_statistics(statistics, model, choose_units(model, statistics, counts));
    const auto orders = unit_orders(model, statistics);
    for (const auto& [path, count] : counts) {
      losses[path] = 0.5 * orders.at(path).error[static_cast<std::size_t>(count)];
    }
  }

  RankPlan ranks;
  Statistics reduced;
  std::map<std::string, double> losses;
};

}  // namespace

PlanSize planned_size(torch::nn::Module& model, const Statistics& statistics, const RankPlan& plan,
                      const PlanOptions& folding) {
  const PlanOfUnits units(model, statistics, plan);
  return planned_size(units.reduced, units.ranks, folding);
}

double predicted_logloss(torch::nn::Module& model, const Statistics& statistics, const RankPlan& plan,
                         double metric_eps) {
  const PlanOfUnits units(model, statistics, plan);
  double loss = predicted_logloss(units.reduced, units.ranks, metric_eps);
  for (const auto& [path, lost] : units.losses) loss += lost;
  return loss;
}

std::vector<LayerSummary> summarize(torch::nn::Module& model, const Statistics& statistics, const RankPlan& plan) {
  const PlanOfUnits units(model, statistics, plan);
  const std::vector<LayerSummary> before = summarize(statistics, {});
  std::vector<LayerSummary> lines = summarize(units.reduced, units.ranks);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    lines[i].parameters_before = before[i].parameters_before;
    const auto lost = units.losses.find(lines[i].layer);
    if (lost != units.losses.end()) lines[i].predicted_logloss += lost->second;
  }
  return lines;
}

}  // namespace afm
