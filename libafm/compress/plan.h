#pragma once

// From spectra and one budget to ranks.
//
//   RankPlan plan = plan_ranks(statistics, {.ratio = 8.0});
//   for (const auto& line : summarize(statistics, plan)) ...   // what it does, layer by layer

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <torch/nn/module.h>

#include "libafm/compress/statistics.h"
#include "libafm/linalg/output_metric.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

// kAuto: kLoss where the statistics have a metric and the budget is not an energy, else kEnergy.
// kLoss: the least predicted rise of the logloss. What a layer or a field of an embedding loses at a rank is half the
//   discarded eigenvalues of its output in the Gauss-Newton metric (LayerStatistics::metric), what it costs is counted
//   in the budget's currency, and the sum is minimised over everything at once, dense layers among the choices.
// kEnergy: every layer keeps at least the same share t of its output's variance; the largest t that fits the budget.
//   An embedding is one layer whose output is all of its fields: their eigenvalues compete, the largest are kept, and a
//   field that hardly varies gets rank 0 (its mean). What the budget leaves over goes where it buys most variance (as a
//   share of the layer's) per cost.
// kUniform: every layer keeps the same share of min(n, m), every field of D, rounded, at least 1; the paper's choice,
//   and a poor one for tables.
// kMeasured: as kLoss, with the loss of each layer alone measured at some ranks (AAFM, Yu and Wu 2023); needs a
//   MeasureLoss.
enum class RankPolicy { kAuto, kLoss, kEnergy, kUniform, kMeasured };
constexpr std::array<std::string_view, 5> enum_names(std::type_identity<RankPolicy>) {
  return {"auto", "loss", "energy", "uniform", "measured"};
}

struct PlanOptions {
  // The budget: exactly one is set. Sizes are those of the whole model after the plan, and after folding with `fold`.
  double ratio = 0.0;  // parameters before / after; above 1
  int64_t bytes = 0;   // parameters and buffers after, integers packed; above 0
  int64_t macs = 0;    // multiply-adds per row of linear layers (each used once) and bases; above 0
  // The fewest bytes whose predicted rise of the logloss by ranks is at most this (what integers add:
  // predicted_change.h); above 0.
  double predicted_logloss = 0.0;
  double energy = 0.0;  // share of output variance that every layer keeps at least; in (0, 1]

  RankPolicy policy = RankPolicy::kAuto;
  // Of embeddings. kShared: directions of the pooled covariance of all fields, of which field j uses the first k_j.
  Basis basis = Basis::kField;
  FactorActivation activation = FactorActivation::kNone;  // between the factors of linear layers
  std::vector<std::string> skip = {};                     // paths of layers (and of all below) to leave alone

  bool joint = false;  // wide weights are decoded from the latents; for embeddings that have them, not for kShared
  // Frequency tiers per field at most: blocks of ids, each about three times as many as all before, of which rarer ones
  // keep fewer coordinates and the rarest one row for all. 0: none. For kLoss.
  int64_t tiers = 0;
  Bits embedding_bits = Bits::kFloat;  // how latents (a dense embedding: values) are stored
  Bits mlp_bits = Bits::kFloat;        // and the weights of linear layers, dense ones too
  ScaleBy embedding_scale = ScaleBy::kRow, mlp_scale = ScaleBy::kRow;  // of their integers
  // Sizes are those after fold(): embeddings have neither basis nor offset, and what reads F D inputs of the embedding
  // reads K = k_1 + .. + k_F.
  bool fold = false;
  // With `fold`, as the model is. A factorization machine meets the embedding (DeepFM): it keeps the bases [K, D], none
  // where they are shared, and a vector [K].
  bool keep_basis = false;
  int64_t cross_layers = 0;  // L vectors of a cross network read it (DCN): they stay L vectors, and 2 (L + 1) numbers
  // The linear layers that read it, a DCN's head among them. Empty: those whose first F D inputs have the means of the
  // embedding's outputs, which a head behind a cross network has not.
  std::vector<std::string> first_layers = {};
  // Fewer hidden units (select_units()) as one more choice. For kLoss, with input moments, and the overload that takes
  // the model.
  bool units = false;
  double metric_eps = kMetricEps;  // see output_metric()
  bool operator==(const PlanOptions&) const = default;
};

// Ranks for every layer that gets smaller by them; a layer whose factors would not pay stays dense, and so does a
// linear layer with one input or one output. Wide weights are kept unless `joint`. A budget is met from below, as
// closely as ranks allow. Throws std::invalid_argument for a bad option or a budget that cannot be reached (it says
// what can).
RankPlan plan_ranks(const Statistics& statistics, const PlanOptions& options);

// The same for RankPolicy::kMeasured. measure(layer, plan): mean KL(model || model with only that layer changed),
// called about eight times a layer.
using MeasureLoss = std::function<double(const std::string& layer, const LayerPlan& plan)>;
RankPlan plan_ranks(const Statistics& statistics, const PlanOptions& options, const MeasureLoss& measure);
// On rows of a dataset, as logits_of() takes them. Statistics and dataset must outlive it.
MeasureLoss measured_by_kl(const Model& model, const Statistics& statistics, const Dataset& dataset,
                           int64_t max_rows = 4096);

// The same for PlanOptions::units. The ranks of the plan are those of the layers with fewer units.
RankPlan plan_ranks(torch::nn::Module& model, const Statistics& statistics, const PlanOptions& options);

// Of the whole module tree after a plan.
struct PlanSize {
  int64_t parameters = 0;
  int64_t bytes = 0;  // parameters and buffers, integers packed
  int64_t macs = 0;   // multiply-adds per row of linear layers (each used once) and bases
  bool operator==(const PlanSize&) const = default;
};
// `folding`: its `fold` and what goes with that count. Throws std::invalid_argument for a plan that does not
// fit the statistics, and for one that asks for fewer units.
PlanSize planned_size(const Statistics& statistics, const RankPlan& plan, const PlanOptions& folding = {});
// The same of a plan that may ask for fewer units of `model`; the statistics then need input moments.
PlanSize planned_size(torch::nn::Module& model, const Statistics& statistics, const RankPlan& plan,
                      const PlanOptions& folding = {});
int64_t planned_parameters(const Statistics& statistics, const RankPlan& plan);  // planned_size().parameters

// Predicted rise of the logloss on the calibration rows, for FactorMethod::kMimic in the metric: the sum over all
// layers and fields, each with its original input and as if the gradient behind it did not depend on its error.
// Integers (predicted_change() is for these) and FactorActivation::kRelu are not counted. Throws as planned_size(), and
// without a metric.
double predicted_logloss(const Statistics& statistics, const RankPlan& plan, double metric_eps = kMetricEps);
// With what fewer units of `model` lose.
double predicted_logloss(torch::nn::Module& model, const Statistics& statistics, const RankPlan& plan,
                         double metric_eps = kMetricEps);

// One line per layer of what a plan does, predictions included. They hold for FactorMethod::kMimic on the calibration
// rows, for each layer given its original input, and without what FactorActivation::kRelu cuts off.
struct LayerSummary {
  std::string layer;
  int64_t field = -1;             // of an embedding; -1 for a linear layer
  int64_t rows = 0, columns = 0;  // out x in, or cardinality x D
  int64_t rank = 0;               // min(out, in) or D where it stays dense
  bool dense = true;
  double kept_energy = 1.0;        // share of the output's variance, by a projection in the plain norm at that rank
  double predicted_mse = 0.0;      // mean squared distance of the outputs: the variance that it discards. Multi-valued
                                   // fields: over the rows that have a value
  double predicted_logloss = 0.0;  // rise of the logloss; 0 without a metric
  int64_t parameters_before = 0, parameters_after = 0;  // wide weights included; a shared basis counts once, in the
                                                        // first field that uses all of it
};
// Throws std::invalid_argument for a plan that does not fit the statistics.
std::vector<LayerSummary> summarize(const Statistics& statistics, const RankPlan& plan);
// The same of a plan that may ask for fewer units of `model`: rows, columns and parameters_after are those of the
// layers that are left, and predicted_logloss of a hidden layer includes what its units lose.
std::vector<LayerSummary> summarize(torch::nn::Module& model, const Statistics& statistics, const RankPlan& plan);
// Eigenvalues of a layer's output (of one field for an embedding), descending [m]: what the report draws. Throws
// std::invalid_argument for a layer or a field that the statistics do not have.
std::vector<double> spectrum_values(const Statistics& statistics, const std::string& layer, int64_t field = -1);

}  // namespace afm
