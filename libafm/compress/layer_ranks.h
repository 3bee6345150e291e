#pragma once

// Private: what ranks mean for one layer: which are allowed, what they cost, what they keep. The one place that knows
// the parameter counts of factorized layers.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/compress/statistics.h"
#include "libafm/linalg/spectrum.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

// How many ranks a layer has: 1, or F for an embedding.
int64_t rank_count(const LayerStatistics& layer);
// The largest rank: min(n, m), or D for an embedding.
int64_t largest_rank(const LayerStatistics& layer);

// Throws std::invalid_argument that names `path` unless `plan` has the right number of ranks, each within its bounds.
void check_ranks(const std::string& path, const LayerStatistics& layer, const LayerPlan& plan);

// Linear: k (m + n) + k + m.
// Embedding: sum_j N_j (k_j + wide) + basis + F D, where the basis is D sum_j k_j or, shared, D max_j k_j.
int64_t factorized_parameters(const LayerStatistics& layer, const std::vector<int64_t>& ranks, Basis basis);

// The orthonormal directions that an output is projected on; a factor pair of rank k keeps the first k.
struct Directions {
  Spectrum spectrum;
  std::vector<double> variance;       // [m] of the output along each: the eigenvalues when the spectrum is its own
  double discarded(int64_t k) const;  // sum of variance[k:], the mean squared error at rank k
};

// One for each rank of the layer. With Basis::kShared all fields of an embedding are projected on the spectrum of the
// pooled covariance sum_j share_j Sigma_j.
std::vector<Directions> output_directions(const LayerStatistics& layer, Basis basis);

// Of all lookups of an embedding, the share that has a value in field j (1 but for multi-valued fields); 1 for a linear
// layer.
double share_of_rows(const LayerStatistics& layer, int64_t field);

}  // namespace afm
