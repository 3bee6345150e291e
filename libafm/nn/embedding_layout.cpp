#include "libafm/nn/embedding_layout.h"

#include <algorithm>

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

// One value per slot: value(field), repeated for the slots of the field.
template <typename Value>
at::Tensor per_slot(const EmbeddingLayout& layout, Value value) {
  std::vector<int64_t> values;
  for (std::size_t j = 0; j < layout.fields.size(); ++j) values.insert(values.end(), layout.fields[j].slots, value(j));
  return at::tensor(values, at::kLong).to(layout.device);
}

at::Tensor column_index(const EmbeddingLayout& layout) {
  std::vector<int64_t> columns;
  for (const FieldLayout& field : layout.fields) {
    for (int64_t slot = 0; slot < field.slots; ++slot) {
      for (int64_t c = 0; c < layout.widest; ++c) columns.push_back(c < field.width ? c : 0);
      if (layout.wide) columns.push_back(field.width);
    }
  }
  return at::tensor(columns, at::kLong).view({layout.slots, layout.widest + layout.wide}).to(layout.device);
}

at::Tensor basis_rows_index(const EmbeddingLayout& layout) {
  std::vector<int64_t> rows;
  for (const FieldLayout& field : layout.fields) {
    for (int64_t c = 0; c < layout.widest; ++c)
      rows.push_back(c < field.width ? field.basis_row + c : layout.basis_rows);
  }
  return at::tensor(rows, at::kLong).to(layout.device);
}

}  // namespace

EmbeddingLayout::EmbeddingLayout(const EmbeddingOptions& options)
    : names(names_of(options)),
      dim(options.embedding_dim),
      dense(options.ranks.empty()),
      wide(options.wide),
      shared(!options.ranks.empty() && options.basis == Basis::kShared) {
  for (std::size_t j = 0; j < options.cardinalities.size(); ++j) {
    FieldLayout field;
    field.cardinality = options.cardinalities[j];
    field.first_slot = slots;
    field.slots = options.slots.empty() ? 1 : options.slots[j];
    field.first_row = rows;
    field.width = dense ? dim : options.ranks[j];
    field.stride = field.width + wide;
    field.start = elements;
    field.basis_row = shared ? 0 : basis_rows;
    fields.push_back(field);
    slots += field.slots;
    rows += field.cardinality;
    elements += field.cardinality * field.stride;
    widest = std::max(widest, field.width);
    multi = multi || field.slots > 1;
    if (!dense) basis_rows = shared ? widest : basis_rows + field.width;
  }
  move_to(at::kCPU);
}

void EmbeddingLayout::move_to(at::Device where) {
  device = where;
  field_of_slot = per_slot(*this, [](std::size_t j) { return static_cast<int64_t>(j); });
  lowest = per_slot(*this, [&](std::size_t j) { return fields[j].slots > 1 ? kEmptySlot : 0; });
  highest = per_slot(*this, [&](std::size_t j) { return fields[j].cardinality - 1; });
  first_row = per_slot(*this, [&](std::size_t j) { return fields[j].first_row; });
  // A field without values has no element to point padding at; it borrows the first of the table.
  start = per_slot(*this, [&](std::size_t j) { return fields[j].stride > 0 ? fields[j].start : 0; });
  stride = per_slot(*this, [&](std::size_t j) { return fields[j].stride; });
  column = column_index(*this);
  if (!dense) basis_index = basis_rows_index(*this);
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
