#pragma once

// Private: what layers lose at their ranks, in predicted logloss.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "libafm/compress/directions.h"
#include "libafm/compress/statistics.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

// One output of a layer (a field of an embedding) in the metric.
struct OutputLoss {
  Directions directions;
  std::vector<double>
      along;          // [m] what dropping each direction costs: 1/2 tr(G Cov(change)), G the Gauss-Newton matrix
  int64_t limit = 0;  // no larger rank keeps more
  double wide = 0.0;  // per squared error of a wide weight with a storage of its own
};

// One per rank of the layer; `form` says which basis and whether joint. Needs a metric.
std::vector<OutputLoss> output_losses(const LayerStatistics& layer, const LayerPlan& form, double metric_eps);

// Of the layer in the form of `plan`.
double layer_loss(const LayerStatistics& layer, const LayerPlan& plan, double metric_eps);
// Of each rank of it; ranks must not be empty.
std::vector<double> losses_of(const LayerStatistics& layer, const LayerPlan& plan, double metric_eps);

// The sum of values[k:], the smallest first.
double tail_of(const std::vector<double>& values, int64_t k);

}  // namespace afm
