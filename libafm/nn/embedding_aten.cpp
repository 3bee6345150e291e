#include <ATen/ATen.h>

#include "libafm/nn/embedding_lookup.h"

namespace afm::nn {
namespace {

// ids as int64 within their range, empty slots still kEmptySlot.
at::Tensor valid_ids(const EmbeddingLayout& layout, const at::Tensor& ids, bool check_ids) {
  at::Tensor valid = ids.to(at::kLong);
  if (!check_ids) return valid.clamp(layout.lowest, layout.highest);
  if (valid.lt(layout.lowest).logical_or_(valid.gt(layout.highest)).any().item<bool>()) fail_id(layout, ids);
  return valid;
}

// Which slots are filled, and the weight of each in the mean over its field.
struct Filling {
  at::Tensor some;    // [B, F, 1] 1 where the field has a filled slot, else 0
  at::Tensor weight;  // [B, S, 1] 1 / filled slots, 0 for an empty slot
};

Filling filling_of(const EmbeddingLayout& layout, const at::Tensor& ids, at::ScalarType dtype) {
  const at::Tensor filled = ids.ge(0).to(dtype);
  const at::Tensor count =
      at::zeros({ids.size(0), layout.field_count()}, filled.options()).index_add_(1, layout.field_of_slot, filled);
  const at::Tensor share = count.clamp_min(1).reciprocal_().index_select(1, layout.field_of_slot);
  return {count.clamp_max(1).unsqueeze(2), filled.mul(share).unsqueeze(2)};
}

// [B, S, C] -> [B, F, C]: the mean over the filled slots of each field.
at::Tensor pool(const EmbeddingLayout& layout, const at::Tensor& rows, const Filling& filling) {
  const int64_t fields = layout.field_count();
  return at::zeros({rows.size(0), fields, rows.size(2)}, rows.options())
      .index_add(1, layout.field_of_slot, rows * filling.weight);
}

// The rows of ids [B, S] >= 0: [B, S, D (+ 1)], or the latent ones padded to the widest field.
at::Tensor gather(const EmbeddingLayout& layout, const at::Tensor& table, const at::Tensor& ids) {
  if (layout.dense) {
    return table.index_select(0, ids.add(layout.first_row).flatten()).view({ids.size(0), layout.slots, table.size(1)});
  }
  const at::Tensor element = ids.mul(layout.stride).add_(layout.start).unsqueeze(2) + layout.column;
  return table.index_select(0, element.flatten()).view(element.sizes());
}

// The same where fields have tiers: a row's tier, then its place in there. What a tier lacks is zero.
at::Tensor gather_tiers(const EmbeddingLayout& layout, const at::Tensor& table, const at::Tensor& ids) {
  const at::Tensor row = ids.add(layout.first_row).flatten();
  const at::Tensor tier = at::bucketize(row, layout.tier_end, /*out_int32=*/false, /*right=*/true);
  const at::Tensor start = layout.stride.index_select(0, tier).mul_(row).add_(layout.start.index_select(0, tier));
  const at::Tensor element = layout.column.index_select(0, tier).add_(start.unsqueeze(1));
  return table.index_select(0, element.flatten())
      .view(element.sizes())
      .masked_fill(layout.missing.index_select(0, tier), 0)
      .view({ids.size(0), layout.slots, element.size(1)});
}

// latent [B, F, widest] -> [B, F, D (+ 1)]. The rows of the padded basis behind a field's rank are zero, so what
// padding holds neither counts nor gets a gradient.
at::Tensor expand(const EmbeddingLayout& layout, const EmbeddingTables& tables, const at::Tensor& latent) {
  const int64_t fields = layout.field_count();
  const at::Tensor padded = at::cat({tables.basis, tables.basis.new_zeros({1, layout.decoded})})
                                .index_select(0, layout.basis_index)
                                .view({fields, layout.widest, layout.decoded});
  return at::bmm(latent.transpose(0, 1), padded).transpose(0, 1);
}

// latent [B, F, widest], undefined when there are no latents -> values, and wide weights when joint.
void decode(const EmbeddingLayout& layout, const EmbeddingTables& tables, const at::Tensor& latent,
            const Filling& filling, int64_t rows, EmbeddingOutput& output) {
  at::Tensor decoded = layout.multi ? tables.offset * filling.some : tables.offset.expand({rows, -1, -1});
  if (latent.defined() && layout.widest > 0) decoded = expand(layout, tables, latent) + decoded;
  output.values = decoded.narrow(2, 0, layout.dim);
  if (layout.joint) output.wide = decoded.select(2, layout.dim).sum(1);
}

}  // namespace

EmbeddingOutput lookup_with_aten(const EmbeddingLayout& layout, const EmbeddingTables& tables, const at::Tensor& ids,
                                 bool check_ids) {
  at::Tensor valid = valid_ids(layout, ids, check_ids);
  Filling filling;
  if (layout.multi) {
    filling = filling_of(layout, valid, tables.table.scalar_type());
    valid = valid.clamp_min(0);
  }
  EmbeddingOutput output;
  at::Tensor latent;
  if (layout.elements > 0) {
    at::Tensor rows = layout.tiered ? gather_tiers(layout, tables.table, valid) : gather(layout, tables.table, valid);
    if (layout.multi) rows = pool(layout, rows, filling);
    latent = rows.narrow(2, 0, layout.widest);
    if (layout.wide) output.wide = rows.select(2, layout.widest).sum(1);
  }
  if (layout.dense) {
    output.values = latent;
  } else if (layout.expands) {
    decode(layout, tables, latent, filling, ids.size(0), output);
  } else {
    output.latents = latent.defined() ? latent.flatten(1).index_select(1, layout.latent_index)
                                      : tables.table.new_zeros({ids.size(0), 0});
  }
  return output;
}

}  // namespace afm::nn
