#pragma once

// Private: the lookup, twice with one meaning. lookup_with_aten serves every device and dtype with a few operations on
// the whole batch; lookup_with_kernels serves float32 on the CPU in one pass.

#include <memory>

#include <ATen/core/Tensor.h>

#include "libafm/nn/embedding_layout.h"
#include "libafm/nn/touched_rows.h"

namespace afm::nn {

// The parameters of one form: table is `weight` or `latent`; basis and offset are undefined when there are none.
struct EmbeddingTables {
  at::Tensor table, basis, offset;
};

// Both take ids [B, S] of the layout. check_ids false (never on the CPU): ids out of range are clamped.
EmbeddingOutput lookup_with_aten(const EmbeddingLayout& layout, const EmbeddingTables& tables, const at::Tensor& ids,
                                 bool check_ids);
EmbeddingOutput lookup_with_kernels(const std::shared_ptr<EmbeddingLayout>& layout, const EmbeddingTables& tables,
                                    const at::Tensor& ids, const std::shared_ptr<RowUpdates>& updates = nullptr);
// With `updates` the rows are brought up to date first, and the table's gradient goes there.
// Whether the kernels serve these parameters with ids on that device.
bool kernels_serve(const EmbeddingTables& tables, const at::Tensor& ids);

}  // namespace afm::nn
