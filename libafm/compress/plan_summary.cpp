#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <fmt/format.h>

#include "libafm/compress/check_plan.h"
#include "libafm/compress/layer_ranks.h"
#include "libafm/compress/plan.h"
#include "libafm/compress/plan_costs.h"
#include "libafm/compress/plan_curves.h"
#include "libafm/core/fail.h"

namespace afm {
namespace {

LayerSummary linear_line(const std::string& path, const LayerStatistics& layer) {
  LayerSummary line{.layer = path, .rows = layer.out_features, .columns = layer.in_features};
  line.rank = largest_rank(layer);
  line.parameters_before = line.parameters_after = layer.parameters();
  return line;
}

LayerSummary field_line(const std::string& path, const LayerStatistics& layer, std::size_t field) {
  LayerSummary line{.layer = path, .field = static_cast<int64_t>(field), .rows = layer.cardinalities[field]};
  line.columns = line.rank = layer.embedding_dim;
  line.parameters_before = line.parameters_after = line.rows * (line.columns + (layer.wide ? 1 : 0));
  return line;
}

void fill_in(LayerSummary& line, const Directions& directions, int64_t rank) {
  line.dense = false;
  line.rank = rank;
  line.predicted_mse = directions.discarded(rank);
  const double total = directions.discarded(0);
  line.kept_energy = total == 0.0 ? 1.0 : 1.0 - line.predicted_mse / total;
}

// The basis counts with the fields: each its own, or the shared one with the first field that uses all of it.
int64_t field_parameters(const LayerStatistics& layer, const LayerPlan& plan, std::size_t field) {
  const StorageRules rules = rules_for(plan, {});
  Size size = field_size(layer, plan, field, plan.ranks[field],
                         plan.tiers.empty() ? std::vector<Tier>() : plan.tiers[field], rules);
  const auto owner = static_cast<std::size_t>(std::ranges::max_element(plan.ranks) - plan.ranks.begin());
  if (owner == field) size += shared_basis_size(layer, plan, rules);
  return std::llround(size.parameters);
}

std::vector<LayerSummary> lines_of(const std::string& path, const LayerStatistics& layer, const LayerPlan* plan) {
  std::vector<LayerSummary> lines;
  for (std::size_t i = 0; i < static_cast<std::size_t>(rank_count(layer)); ++i) {
    lines.push_back(layer.is_embedding ? field_line(path, layer, i) : linear_line(path, layer));
  }
  if (!plan || plan->ranks.empty()) return lines;
  const auto directions = output_directions(layer, {.basis = plan->basis, .joint = plan->joint});
  for (std::size_t i = 0; i < lines.size(); ++i) {
    fill_in(lines[i], directions[i], plan->ranks[i]);
    lines[i].parameters_after =
        layer.is_embedding ? field_parameters(layer, *plan, i) : std::llround(layer_size(layer, *plan, {}).parameters);
  }
  if (layer.metric.empty()) return lines;
  const std::vector<double> losses = losses_of(layer, *plan, kMetricEps);
  for (std::size_t i = 0; i < lines.size(); ++i) lines[i].predicted_logloss = losses[i];
  return lines;
}

}  // namespace

std::vector<LayerSummary> summarize(const Statistics& statistics, const RankPlan& plan) {
  check_plan(statistics, plan);
  std::vector<LayerSummary> lines;
  for (const auto& [path, layer] : statistics.layers) {
    const auto found = plan.find(path);
    for (LayerSummary& line : lines_of(path, layer, found == plan.end() ? nullptr : &found->second)) {
      lines.push_back(std::move(line));
    }
  }
  return lines;
}

std::vector<double> spectrum_values(const Statistics& statistics, const std::string& layer, int64_t field) {
  const LayerStatistics& found = layer_named(statistics, layer);
  const int64_t fields = found.is_embedding ? rank_count(found) : 0;
  if (found.is_embedding ? field < 0 || field >= fields : field != -1) {
    const std::string rule = found.is_embedding ? fmt::format("in [0, {}]", fields - 1) : "-1";
    fail<std::invalid_argument>("spectrum_values: field of layer '{}' must be {}, got {}", layer, rule, field);
  }
  const Moments& output = found.output[static_cast<std::size_t>(std::max<int64_t>(field, 0))];
  const at::Tensor values = spectrum_of(output.covariance()).values;
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

}  // namespace afm
