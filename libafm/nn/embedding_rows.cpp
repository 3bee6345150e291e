#include "libafm/nn/embedding_rows.h"

#include <ATen/ATen.h>

namespace afm::nn {

at::Tensor stored_rows(const EmbeddingLayout& layout, const at::Tensor& table, const TierLayout& tier) {
  const int64_t size = tier.rank + layout.wide;
  return table.detach().view({-1}).narrow(0, tier.start, tier.stored * size).view({tier.stored, size});
}

at::Tensor rows_of(const EmbeddingLayout& layout, const at::Tensor& table, const FieldLayout& field) {
  if (field.tiers.size() == 1 && field.tiers[0].stored == field.cardinality) {
    return stored_rows(layout, table, field.tiers[0]);
  }
  const at::Tensor rows = at::zeros({field.cardinality, field.width + layout.wide}, table.options());
  for (const TierLayout& tier : field.tiers) {
    const at::Tensor stored = stored_rows(layout, table, tier), to = rows.narrow(0, tier.first, tier.end - tier.first);
    to.narrow(1, 0, tier.rank).copy_(stored.narrow(1, 0, tier.rank));
    if (layout.wide) to.select(1, field.width).copy_(stored.select(1, tier.rank));
  }
  return rows;
}

}  // namespace afm::nn
