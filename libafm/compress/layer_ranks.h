#pragma once

// Private: which ranks a layer may have.

#include <cstdint>
#include <string>
#include <vector>

#include "libafm/compress/directions.h"
#include "libafm/compress/statistics.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

// How many ranks a layer has: 1, or F for an embedding.
int64_t rank_count(const LayerStatistics& layer);
// The largest rank: min(n, m), or D for an embedding, D + 1 when joint.
int64_t largest_rank(const LayerStatistics& layer, bool joint = false);

// Throws std::invalid_argument that names `path` unless `plan` fits the layer: none (dense) or as many ranks as it has,
// each within its bounds, joint only beside wide weights, tiers that cover the ids of their field with ranks that do
// not grow. Fewer units are not looked at.
void check_ranks(const std::string& path, const LayerStatistics& layer, const LayerPlan& plan);

}  // namespace afm
