#include <algorithm>
#include <cmath>
#include <utility>

#include "libafm/compress/layer_ranks.h"
#include "libafm/compress/plan_candidate.h"
#include "libafm/compress/plan_curves.h"
#include "libafm/compress/plan_search.h"

namespace afm {
namespace {

constexpr int64_t kMeasuredRanks = 8;  // of each layer

LayerChoice predicted_choice(const std::string& path, const LayerStatistics& layer, const PlanOptions& options) {
  LayerChoice choice{.path = path, .layer = &layer, .forms = {{}}};
  const std::vector<OutputLoss> losses = output_losses(layer, form_of(layer, options), options.metric_eps);
  if (!layer.is_embedding) {
    for (int64_t rank = 0; rank <= losses[0].limit; ++rank) {
      choice.forms.push_back({{rank}, tail_of(losses[0].along, rank)});
    }
    return choice;
  }
  for (std::size_t j = 0; j < losses.size(); ++j) {
    const OutputLoss& field = losses[j];
    choice.fields.push_back(tier_losses(layer, j, field.directions, field.along, field.limit, field.wide,
                                        tier_rows(layer, j, options.tiers)));
  }
  return choice;
}

}  // namespace

std::vector<LayerChoice> predicted_choices(const Statistics& statistics, const PlanOptions& options) {
  std::vector<LayerChoice> choices;
  for (const auto& [path, layer] : statistics.layers) {
    if (is_candidate(path, layer, options)) choices.push_back(predicted_choice(path, layer, options));
  }
  return choices;
}

std::vector<LayerChoice> measured_choices(const Statistics& statistics, const PlanOptions& options,
                                          const MeasureLoss& measure) {
  const Currency currency = budget_of(statistics, options).currency;
  const StorageRules rules = storage_rules(statistics, options);
  std::vector<LayerChoice> choices;
  for (const auto& [path, layer] : statistics.layers) {
    if (!is_candidate(path, layer, options)) continue;
    LayerChoice& choice = choices.emplace_back(LayerChoice{.path = path, .layer = &layer, .forms = {{}}});
    const PlanCandidate candidate(path, layer, options, currency, rules);
    for (const Ranks& ranks : candidate.ladder(kMeasuredRanks)) {
      choice.forms.push_back({ranks, measure(path, layer_plan(layer, options, ranks))});
    }
  }
  return choices;
}

}  // namespace afm
