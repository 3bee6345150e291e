#pragma once

// Private: what ranks mean for one layer: which are allowed, what they cost, what they keep. The one place that knows
// the parameter counts of factorized layers.

#include <cstdint>
#include <string>
#include <vector>

#include "libafm/compress/directions.h"
#include "libafm/compress/statistics.h"
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

}  // namespace afm
