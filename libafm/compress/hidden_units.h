#pragma once

// Fewer hidden units: h -> W2 h + b2 with h = act(norm(W1 x + b1)) keeps the units S, and W2 learns to predict from
// them what the others gave (the Nystrom approximation of Cov(h); MoDeGPT, Lin et al. 2025):
//   W2' = W2 C[:, S] C[S, S]^-1,   b2' = b2 + (W2 mean - W2' mean[S]),   C = Cov(h)
// with a mean squared output error of tr(W2 R W2'), R = C - C[:, S] C[S, S]^-1 C[S, :].

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include "libafm/compress/statistics.h"
#include "libafm/linalg/moments.h"
#include "libafm/linalg/output_metric.h"

namespace afm {

struct HiddenUnits {
  std::vector<int64_t> order;  // [H], or as many as were asked for: the units, those to keep first
  std::vector<double> error;   // [1 + those] mean squared error of the next layer's output, in the metric, after so
                               // many; not growing; with a metric of the logloss half of it is its predicted rise
};

inline constexpr int64_t kAllUnits = std::numeric_limits<int64_t>::max();

// Chooses units greedily, each time the one that takes most off the error (pivoted Cholesky of Cov(h)). hidden: moments
// of h [H], the input of the next layer (LayerStatistics::input); next_weight [m, H]. Units that the kept ones predict
// but for rounding come last. most: choose no more than so many. Throws std::invalid_argument for shapes that do not
// fit.
HiddenUnits select_units(const Moments& hidden, const at::Tensor& next_weight, const OutputMetric& metric = {},
                         int64_t most = kAllUnits);

// The next layer for the units that are kept.
struct NextLayer {
  at::Tensor weight;  // [m, k]
  at::Tensor bias;    // [m]
};

// weight [m, H], bias [m] (undefined: zero), kept: different units in [0, H). Computed in float64, returned in the
// dtype and on the device of `weight`.
NextLayer refit_next_layer(const Moments& hidden, const at::Tensor& weight, const at::Tensor& bias,
                           const std::vector<int64_t>& kept);

// A hidden layer of an Mlp and the layer that reads it.
struct HiddenLayer {
  std::string path;          // "mlp.layers.0"
  std::string norm = {};     // "mlp.norms.0"; empty without batch norm
  std::string next = {};     // "mlp.layers.1", "mlp.head" or, for an Mlp without head, what stands behind it
  int64_t first_column = 0;  // of h in the input of `next`
};

// The hidden layers whose units can be chosen: those of every nn::Mlp in the tree with a layer behind them. A last
// hidden layer without head counts where a child "head" of the root reads it in its last columns.
std::vector<HiddenLayer> hidden_layers(torch::nn::Module& root);

// Hidden layer -> the units it keeps, in the order in which they will stand (ascending).
using KeptUnits = std::map<std::string, std::vector<int64_t>>;

// `counts`: hidden layer -> how many units it keeps, in [1, H]. Selected in the metric of the next layer's output where
// the statistics have one. Throws std::invalid_argument for a layer that is not one of hidden_layers(), without
// CollectOptions::input_moments, or a count out of range.
KeptUnits choose_units(torch::nn::Module& root, const Statistics& statistics,
                       const std::map<std::string, int64_t>& counts);

// The order and errors of every hidden layer: what a planner chooses counts from.
std::map<std::string, HiddenUnits> unit_orders(torch::nn::Module& root, const Statistics& statistics);

// The statistics that the reduced model would have, without running it: submatrices for the layers themselves, the
// moments of W2' h[S] + b2' for those behind them. The metric of a kept unit is scaled by how much more its h counts in
// W2' than in W2. What lies further back keeps its statistics.
Statistics reduced_statistics(const Statistics& statistics, torch::nn::Module& root, const KeptUnits& kept);

}  // namespace afm
