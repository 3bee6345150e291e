#include <algorithm>
#include <stdexcept>

#include <fmt/ranges.h>

#include "libafm/compress/layer_ranks.h"
#include "libafm/compress/plan.h"
#include "libafm/core/fail.h"

namespace afm {
namespace {

const LayerStatistics& layer_named(const Statistics& statistics, const std::string& path) {
  const auto found = statistics.layers.find(path);
  if (found != statistics.layers.end()) return found->second;
  std::vector<std::string> known;
  for (const auto& [name, layer] : statistics.layers) known.push_back(name);
  fail<std::invalid_argument>("there are no statistics of layer '{}'; there are of: {}", path, fmt::join(known, ", "));
}

void check_plan(const Statistics& statistics, const RankPlan& plan) {
  for (const auto& [path, layer_plan] : plan) check_ranks(path, layer_named(statistics, path), layer_plan);
}

const LayerPlan* find(const RankPlan& plan, const std::string& path) {
  const auto found = plan.find(path);
  return found == plan.end() ? nullptr : &found->second;
}

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
  const int64_t rank = plan.ranks[field];
  const auto owner = static_cast<std::size_t>(std::ranges::max_element(plan.ranks) - plan.ranks.begin());
  const int64_t basis_rows = plan.basis == Basis::kShared && owner != field ? 0 : rank;
  return layer.cardinalities[field] * (rank + (layer.wide ? 1 : 0)) + (basis_rows + 1) * layer.embedding_dim;
}

}  // namespace

std::vector<LayerSummary> summarize(const Statistics& statistics, const RankPlan& plan) {
  check_plan(statistics, plan);
  std::vector<LayerSummary> lines;
  for (const auto& [path, layer] : statistics.layers) {
    const LayerPlan* layer_plan = find(plan, path);
    const auto directions = layer_plan ? output_directions(layer, {.basis = layer_plan->basis}) : std::vector<Directions>();
    for (std::size_t i = 0; i < static_cast<std::size_t>(rank_count(layer)); ++i) {
      LayerSummary& line =
          lines.emplace_back(layer.is_embedding ? field_line(path, layer, i) : linear_line(path, layer));
      if (!layer_plan) continue;
      fill_in(line, directions[i], layer_plan->ranks[i]);
      line.parameters_after = layer.is_embedding ? field_parameters(layer, *layer_plan, i)
                                                 : factorized_parameters(layer, layer_plan->ranks, layer_plan->basis);
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

int64_t planned_parameters(const Statistics& statistics, const RankPlan& plan) {
  check_plan(statistics, plan);
  int64_t parameters = statistics.parameters;
  for (const auto& [path, layer_plan] : plan) {
    const LayerStatistics& layer = statistics.layers.at(path);
    parameters += factorized_parameters(layer, layer_plan.ranks, layer_plan.basis) - layer.parameters();
  }
  return parameters;
}

}  // namespace afm
