#pragma once

// Private: the tables of an embedding as factors.

#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/compress/directions.h"
#include "libafm/compress/statistics.h"
#include "libafm/linalg/factors.h"
#include "libafm/nn/embedding.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

struct EmbeddingFactors {
  std::vector<TableFactors> fields;  // [F]
  at::Tensor wide;                   // [N], undefined unless shared tiers change wide weights of their own
};

// Directions by `metric` and `metric_eps`. An id without a count gets the mean of its field where `unseen_are_noise`.
// A field with tiers has its mean as offset, so that coordinates that a tier lacks are those of the mean.
EmbeddingFactors mimicked_tables(const nn::EmbeddingImpl& layer, const LayerStatistics& statistics,
                                 const LayerPlan& plan, bool metric, double metric_eps, bool unseen_are_noise);

// From the tables alone, every row the same: no offset.
EmbeddingFactors svd_tables(const nn::EmbeddingImpl& layer, const LayerPlan& plan);

}  // namespace afm
