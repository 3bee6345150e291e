#pragma once

// Private: which elements of the flat table share a scale.

#include "libafm/nn/embedding_layout.h"
#include "libafm/nn/quantize.h"

namespace afm::nn {

// The scales in order. By row: one per stored row, as the rows lie in the table, but none in a tier of rank 0. By
// column: k_j (dense: D) per field, for all its tiers. Behind them, where the table stores wide weights, one per field
// for those.
ScaleGroups scale_groups_of(const EmbeddingLayout& layout, ScaleBy by);

}  // namespace afm::nn
