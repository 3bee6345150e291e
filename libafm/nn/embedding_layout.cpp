#include "libafm/nn/embedding_layout.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/data/batch.h"

namespace afm::nn {
namespace {

std::vector<std::string> names_of(const EmbeddingOptions& options) {
  if (!options.names.empty()) return options.names;
  std::vector<std::string> numbers;
  for (std::size_t j = 0; j < options.cardinalities.size(); ++j) numbers.push_back(std::to_string(j));
  return numbers;
}

at::Tensor to_tensor(const EmbeddingLayout& layout, const std::vector<int64_t>& values) {
  return at::tensor(values, at::kLong).to(layout.device);
}

// One value per slot: value(field), repeated for the slots of the field.
template <typename Value>
at::Tensor per_slot(const EmbeddingLayout& layout, Value value) {
  std::vector<int64_t> values;
  for (std::size_t j = 0; j < layout.fields.size(); ++j) values.insert(values.end(), layout.fields[j].slots, value(j));
  return to_tensor(layout, values);
}

// The columns of a row of `rank` values, padded, and the wide weight's.
void add_columns(const EmbeddingLayout& layout, int64_t rank, std::vector<int64_t>& columns) {
  for (int64_t c = 0; c < layout.widest; ++c) columns.push_back(c < rank ? c : 0);
  if (layout.wide) columns.push_back(rank);
}

void index_slots(EmbeddingLayout& layout) {
  // A field without values has no element to point padding at; it borrows the first of the table.
  const auto first = [&](std::size_t j) -> const TierLayout& { return layout.fields[j].tiers[0]; };
  layout.start = per_slot(layout, [&](std::size_t j) { return first(j).stride > 0 ? first(j).start : 0; });
  layout.stride = per_slot(layout, [&](std::size_t j) { return first(j).stride; });
  std::vector<int64_t> columns;
  for (const FieldLayout& field : layout.fields) {
    for (int64_t slot = 0; slot < field.slots; ++slot) add_columns(layout, field.width, columns);
  }
  layout.column = to_tensor(layout, columns).view({layout.slots, layout.widest + layout.wide});
}

void index_tiers(EmbeddingLayout& layout) {
  std::vector<int64_t> starts, strides, ends, columns, missing;
  for (const FieldLayout& field : layout.fields) {
    for (const TierLayout& tier : field.tiers) {
      const bool stores = tier.rank + layout.wide > 0;
      starts.push_back(stores ? tier.start - (field.first_row + tier.first) * tier.stride : 0);
      strides.push_back(tier.stride);
      ends.push_back(field.first_row + tier.end);
      add_columns(layout, tier.rank, columns);
      for (int64_t c = 0; c < layout.widest; ++c) missing.push_back(c >= tier.rank);
      if (layout.wide) missing.push_back(0);
    }
  }
  const auto tiers = static_cast<int64_t>(ends.size());
  layout.start = to_tensor(layout, starts);
  layout.stride = to_tensor(layout, strides);
  layout.tier_end = to_tensor(layout, ends);
  layout.column = to_tensor(layout, columns).view({tiers, layout.widest + layout.wide});
  layout.missing = to_tensor(layout, missing).view(layout.column.sizes()).to(at::kBool);
}

void index_latents(EmbeddingLayout& layout) {
  std::vector<int64_t> basis_rows, latents;
  for (std::size_t j = 0; j < layout.fields.size(); ++j) {
    const FieldLayout& field = layout.fields[j];
    for (int64_t c = 0; c < layout.widest; ++c) {
      basis_rows.push_back(c < field.width ? field.basis_row + c : layout.basis_rows);
      if (c < field.width) latents.push_back(static_cast<int64_t>(j) * layout.widest + c);
    }
  }
  layout.basis_index = to_tensor(layout, basis_rows);
  layout.latent_index = to_tensor(layout, latents);
}

std::vector<Tier> tiers_of(const EmbeddingOptions& options, std::size_t j, int64_t width) {
  if (!options.tiers.empty() && !options.tiers[j].empty()) return options.tiers[j];
  return {{.rows = options.cardinalities[j], .rank = width}};
}

// The tiers of the field that begins behind all that `layout` holds so far.
void add_tiers(EmbeddingLayout& layout, FieldLayout& field, const std::vector<Tier>& tiers) {
  int64_t first = 0;
  field.first_stored = layout.stored_rows;
  for (const Tier& tier : tiers) {
    const int64_t stored = tier.shared ? 1 : tier.rows, size = tier.rank + layout.wide;
    field.tiers.push_back({.first = first,
                           .end = first + tier.rows,
                           .stored = stored,
                           .first_stored = layout.stored_rows - field.first_stored,
                           .start = layout.elements,
                           .stride = tier.shared ? 0 : size,
                           .rank = tier.rank});
    first += tier.rows;
    layout.elements += stored * size;
    layout.stored_rows += stored;
    layout.tiered = layout.tiered || tier.shared;
  }
  layout.tiered = layout.tiered || tiers.size() > 1;
}

}  // namespace

EmbeddingLayout::EmbeddingLayout(const EmbeddingOptions& options)
    : names(names_of(options)),
      dim(options.embedding_dim),
      decoded(options.embedding_dim + options.joint),
      dense(options.ranks.empty()),
      wide(options.wide && !options.joint),
      joint(options.joint),
      shared(!options.ranks.empty() && options.basis == Basis::kShared),
      expands(!options.ranks.empty() && options.basis != Basis::kNone) {
  for (std::size_t j = 0; j < options.cardinalities.size(); ++j) {
    FieldLayout field;
    field.cardinality = options.cardinalities[j];
    field.first_slot = slots;
    field.slots = options.slots.empty() ? 1 : options.slots[j];
    field.multi = options.multi_valued.empty() ? field.slots > 1 : options.multi_valued[j];
    field.first_row = rows;
    field.width = dense ? dim : options.ranks[j];
    field.basis_row = shared ? 0 : basis_rows;
    field.output = output_width;
    add_tiers(*this, field, tiers_of(options, j, field.width));
    slots += field.slots;
    rows += field.cardinality;
    output_width += expands ? dim : field.width;
    widest = std::max(widest, field.width);
    multi = multi || field.multi;
    if (expands) basis_rows = shared ? widest : basis_rows + field.width;
    fields.push_back(std::move(field));
  }
  move_to(at::kCPU);
}

void EmbeddingLayout::move_to(at::Device where) {
  device = where;
  field_of_slot = per_slot(*this, [](std::size_t j) { return static_cast<int64_t>(j); });
  lowest = per_slot(*this, [&](std::size_t j) { return fields[j].multi ? kEmptySlot : 0; });
  highest = per_slot(*this, [&](std::size_t j) { return fields[j].cardinality - 1; });
  first_row = per_slot(*this, [&](std::size_t j) { return fields[j].first_row; });
  tiered ? index_tiers(*this) : index_slots(*this);
  if (!dense) index_latents(*this);
}

void fail_id(const EmbeddingLayout& layout, const at::Tensor& ids) {
  const at::Tensor cpu = ids.to(at::kCPU, at::kLong);
  const at::Tensor wrong =
      at::nonzero(cpu.lt(layout.lowest.cpu()).logical_or_(cpu.gt(layout.highest.cpu()))).select(0, 0);
  const auto row = wrong[0].item<int64_t>(), slot = wrong[1].item<int64_t>();
  const auto j = static_cast<std::size_t>(layout.field_of_slot.cpu()[slot].item<int64_t>());
  fail<DataError>("field '{}' has id {}, its ids are 0 to {}", layout.names[j], cpu[row][slot].item<int64_t>(),
                  layout.fields[j].cardinality - 1);
}

}  // namespace afm::nn
