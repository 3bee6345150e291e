#pragma once

// Private: the rows of one field in the flat table, with shared rows repeated and the coordinates that a tier lacks
// zero.

#include <ATen/core/Tensor.h>

#include "libafm/nn/embedding_layout.h"

namespace afm::nn {

// [N_j, width + wide]: a view of `table` where nothing has to be filled in, else a copy; without gradient.
at::Tensor rows_of(const EmbeddingLayout& layout, const at::Tensor& table, const FieldLayout& field);

// The rows that `tier` stores, a view [stored, rank + wide].
at::Tensor stored_rows(const EmbeddingLayout& layout, const at::Tensor& table, const TierLayout& tier);

}  // namespace afm::nn
