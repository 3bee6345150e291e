#include "libafm/nn/embedding_integers.h"

#include <ATen/ATen.h>

#include "libafm/nn/integer_weight.h"

namespace afm::nn {
namespace {

int64_t values_in_row(const EmbeddingLayout& layout, const TierLayout& tier) { return tier.rank + layout.wide; }

// The values: a scale per stored row, tiers of rank 0 having none, or one per column of a field for all its tiers.
void add_value_blocks(const EmbeddingLayout& layout, const FieldLayout& field, ScaleBy by, ScaleGroups& groups) {
  for (const TierLayout& tier : field.tiers) {
    if (tier.rank == 0) continue;
    groups.blocks.push_back({.start = tier.start,
                             .rows = tier.stored,
                             .stride = values_in_row(layout, tier),
                             .width = tier.rank,
                             .by = by,
                             .first_group = groups.count});
    if (by == ScaleBy::kRow) groups.count += tier.stored;
  }
  if (by == ScaleBy::kColumn) groups.count += field.width;
}

// The wide weights of a field share one scale, whatever `by` is: a scale per weight would be larger than the weight.
void add_wide_blocks(const EmbeddingLayout& layout, const FieldLayout& field, ScaleGroups& groups) {
  for (const TierLayout& tier : field.tiers) {
    groups.blocks.push_back({.start = tier.start + tier.rank,
                             .rows = tier.stored,
                             .stride = values_in_row(layout, tier),
                             .width = 1,
                             .by = ScaleBy::kColumn,
                             .first_group = groups.count});
  }
  ++groups.count;
}

bool is_one_matrix(const EmbeddingLayout& layout, ScaleBy by) {
  return layout.dense && !layout.wide && by == ScaleBy::kRow;
}

}  // namespace

ScaleGroups scale_groups_of(const EmbeddingLayout& layout, ScaleBy by) {
  if (is_one_matrix(layout, by)) return matrix_groups(layout.rows, layout.dim, by);
  ScaleGroups groups{.blocks = {}, .elements = layout.elements, .count = 0};
  for (const FieldLayout& field : layout.fields) add_value_blocks(layout, field, by, groups);
  if (!layout.wide) return groups;
  for (const FieldLayout& field : layout.fields) add_wide_blocks(layout, field, groups);
  return groups;
}

std::vector<IntegerParameter> EmbeddingImpl::integer_parameters() const {
  if (!integers_) return {};
  return {{is_dense() ? "weight" : "latent", is_dense() ? weight : latent, integers_}};
}

void EmbeddingImpl::train(bool on) {
  torch::nn::Module::train(on);
  if (integers_) integers_->forget();
}

at::Tensor EmbeddingImpl::table_values() const {
  const at::Tensor& table = is_dense() ? weight : latent;
  return integers_ ? integers_->values(table, /*keep=*/!is_training()) : table;
}

}  // namespace afm::nn
