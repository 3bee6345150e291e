#pragma once

// From spectra and one budget to ranks.
//
//   RankPlan plan = plan_ranks(statistics, {.ratio = 8.0});
//   for (const auto& line : summarize(statistics, plan)) ...   // what it does, layer by layer

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "libafm/compress/statistics.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

// kEnergy: every layer keeps at least the same share t of its output's variance; the largest t that fits the budget.
//   An embedding is one layer whose output is all of its fields: their eigenvalues compete, the largest are kept, and a
//   field that hardly varies gets rank 0 (its mean). What the budget leaves over goes where it buys most variance (as a
//   share of the layer's) per parameter.
// kUniform: every layer keeps the same share of min(n, m), every field of D, rounded, at least 1; the paper's choice,
// and
//   a poor one for tables.
enum class RankPolicy { kEnergy, kUniform };
constexpr std::array<std::string_view, 2> enum_names(std::type_identity<RankPolicy>) { return {"energy", "uniform"}; }

struct PlanOptions {
  // The budget: exactly one is set.
  double ratio = 0.0;   // parameters before / after; above 1
  int64_t bytes = 0;    // size of parameters and buffers after; above 0
  double energy = 0.0;  // share of output variance that every layer keeps at least; in (0, 1]

  RankPolicy policy = RankPolicy::kEnergy;
  // Of embeddings. kShared: directions of the pooled covariance of all fields, of which field j uses the first k_j.
  Basis basis = Basis::kField;
  FactorActivation activation = FactorActivation::kNone;  // between the factors of linear layers
  std::vector<std::string> skip = {};                     // paths of layers (and of all below) to leave alone
  bool operator==(const PlanOptions&) const = default;
};

// Ranks for every layer that gets smaller by them; a layer whose factors would not pay stays dense, and so does a
// linear layer with one input or one output. Wide weights are kept. A budget is met from below, as closely as ranks
// allow. Throws std::invalid_argument for a bad option or a budget that cannot be reached (it says what can).
RankPlan plan_ranks(const Statistics& statistics, const PlanOptions& options);

// One line per layer of what a plan does, predictions included. They hold for FactorMethod::kMimic on the calibration
// rows, for each layer given its original input, and without what FactorActivation::kRelu cuts off.
struct LayerSummary {
  std::string layer;
  int64_t field = -1;             // of an embedding; -1 for a linear layer
  int64_t rows = 0, columns = 0;  // out x in, or cardinality x D
  int64_t rank = 0;               // min(out, in) or D where it stays dense
  bool dense = true;
  double kept_energy = 1.0;    // share of the output's variance
  double predicted_mse = 0.0;  // mean squared distance of the outputs: the discarded variance. Multi-valued fields:
                               // over the rows that have a value
  int64_t parameters_before = 0, parameters_after = 0;  // wide weights included; a shared basis counts once, in the
                                                        // first field that uses all of it
};
// Throws std::invalid_argument for a plan that does not fit the statistics.
std::vector<LayerSummary> summarize(const Statistics& statistics, const RankPlan& plan);
// Eigenvalues of a layer's output (of one field for an embedding), descending [m]: what the report draws. Throws
// std::invalid_argument for a layer or a field that the statistics do not have.
std::vector<double> spectrum_values(const Statistics& statistics, const std::string& layer, int64_t field = -1);
// Parameters of the whole module tree after the plan. Throws as summarize().
int64_t planned_parameters(const Statistics& statistics, const RankPlan& plan);

}  // namespace afm
