#pragma once

// From spectra and one budget to ranks.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "libafm/compress/statistics.h"
#include "libafm/core/fields.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

// kEnergy: every layer and table keeps the same share of its output's variance. kUniform: every layer and table keeps the
// same share of its rank; the paper's choice, and a poor one for tables.
enum class RankPolicy { kEnergy, kUniform };
constexpr std::array<std::string_view, 2> enum_names(std::type_identity<RankPolicy>) { return {"energy", "uniform"}; }

struct PlanOptions {
  // The budget: exactly one is set.
  double ratio = 0.0;              // parameters before / after; > 1
  int64_t bytes = 0;               // size of parameters and buffers after; > 0
  double energy = 0.0;             // share of output variance to keep; in (0, 1]

  RankPolicy policy = RankPolicy::kEnergy;
  Basis basis = Basis::kField;                             // of embeddings
  FactorActivation activation = FactorActivation::kNone;   // between the factors of linear layers
  std::vector<std::string> skip;   // paths of layers (and of everything below) to leave alone
  bool operator==(const PlanOptions&) const = default;
};

// Ranks for every layer that gets smaller by them; a layer whose factors would not pay stays dense, and so does a linear
// layer with one output. Throws std::invalid_argument for a bad option or a budget that cannot be reached (it says what
// can).
RankPlan plan_ranks(const Statistics& statistics, const PlanOptions& options);

// One line per layer of what a plan does, predictions included. `field` numbers an embedding's fields; -1 for a linear
// layer.
struct LayerSummary {
  std::string layer;
  int64_t field = -1;
  int64_t rows = 0, columns = 0;   // out x in, or cardinality x D
  int64_t rank = 0;                // min(out, in) or D where it stays dense
  bool dense = true;
  double kept_energy = 1.0;        // share of the output's variance
  double predicted_mse = 0.0;      // sum of discarded eigenvalues
  int64_t parameters_before = 0, parameters_after = 0;
};
std::vector<LayerSummary> summarize(const Statistics& statistics, const RankPlan& plan);
// Eigenvalues of a layer's output (of one field for an embedding), descending [m]: what the report draws.
std::vector<double> spectrum_values(const Statistics& statistics, const std::string& layer, int64_t field = -1);
// Parameters of the module tree after the plan.
int64_t planned_parameters(const Statistics& statistics, const RankPlan& plan);

}  // namespace afm
