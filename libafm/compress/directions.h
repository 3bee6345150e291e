#pragma once

// Private: the directions that a layer's output is projected on, in the norm that counts. Planning and factorizing must
// agree on them, so both ask here.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/compress/statistics.h"
#include "libafm/linalg/output_metric.h"
#include "libafm/linalg/spectrum.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

struct DirectionOptions {
  Basis basis = Basis::kField;  // of an embedding; kNone as kField
  bool joint = false;           // an embedding with its wide weights: [D + 1]
  bool metric = false;          // in LayerStatistics::metric, which must be there; else plain squared error
  double metric_eps = kMetricEps;
};

// A factor pair of rank k keeps the first k.
struct Directions {
  Spectrum spectrum;                  // of M C M
  std::vector<double> variance;       // [m] what dropping each one costs, of squared error in the metric
  OutputMetric metric = {};           // M; plain without DirectionOptions::metric
  double discarded(int64_t k) const;  // sum of variance[k:], the mean squared error in the metric at rank k; with a
                                      // metric, half of it is the predicted rise of the logloss
};

// One for each rank of the layer. With Basis::kShared all fields of an embedding are projected on one basis: the
// spectrum of the pooled covariance sum_j share_j Sigma_j or, with a metric, of that of the fields weighted by the
// trace of theirs, in their mean metric; what each field loses is measured in its own.
std::vector<Directions> output_directions(const LayerStatistics& layer, const DirectionOptions& options);

// Of all lookups of an embedding, the share that has a value in field j (1 but for multi-valued fields); 1 for a linear
// layer.
double share_of_rows(const LayerStatistics& layer, int64_t field);

// The moments that directions are taken from: LayerStatistics::output, or `joint`.
const std::vector<Moments>& moments_of(const LayerStatistics& layer, bool joint);

}  // namespace afm
