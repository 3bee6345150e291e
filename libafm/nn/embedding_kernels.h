#pragma once

// Private: the lookup and its gradients on float32 arrays on the CPU, for all forms of the table. Gradients do not
// depend on the number of threads: one task owns the rows of a field and adds to them in the order of the batch.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/nn/embedding_layout.h"
#include "libafm/nn/touched_rows.h"

namespace afm::nn {

struct LookupInput {
  at::Tensor ids;               // [B, S] int32 or int64, any strides
  const float* table;           // flat; may be null in lookup_gradients without a basis
  const float *basis, *offset;  // null without a basis
};

// Fills values [B, F, D], or latents [B, K], and wide [B] unless it is null. False when an id is out of range; the
// outputs are then undefined.
[[nodiscard]] bool lookup_rows(const EmbeddingLayout& layout, const LookupInput& input, float* values, float* wide);

struct LookupGradients {
  const float *values, *wide;      // incoming, values or latents; null: zero
  float *table, *basis, *offset;   // outgoing, zero at first; null: not wanted
  TouchedRows* touched = nullptr;  // of these ids: their `gradient` is filled instead of `table`
};
void lookup_gradients(const EmbeddingLayout& layout, const LookupInput& input, const LookupGradients& gradients);

}  // namespace afm::nn
