#pragma once

// Random rows that fit a schema, and the schemas that the tests of datasets share.

#include <cstdint>
#include <filesystem>
#include <vector>

#include <ATen/ATen.h>

#include "libafm/data/dataset.h"

namespace afm::testing {

// Two categorical fields, one multi-valued, two numeric: S = 5, Q = 2.
inline Schema mixed_schema() {
  return {.fields = {{.name = "user", .cardinality = 50},
                     {.name = "price", .kind = FieldKind::kNumeric},
                     {.name = "genres", .kind = FieldKind::kMulti, .cardinality = 8, .max_values = 3},
                     {.name = "age", .kind = FieldKind::kNumeric},
                     {.name = "hour", .cardinality = 24}}};
}

inline Schema ids_only_schema() {
  return {.fields = {{.name = "user", .cardinality = 50},
                     {.name = "genres", .kind = FieldKind::kMulti, .cardinality = 8, .max_values = 3}}};
}

inline Schema numbers_only_schema() {
  return {.fields = {{.name = "price", .kind = FieldKind::kNumeric}, {.name = "age", .kind = FieldKind::kNumeric}}};
}

inline Batch random_rows(const Schema& schema, int64_t rows) {
  std::vector<at::Tensor> columns = {at::empty({rows, 0}, at::kInt)};
  for (const auto& spec : schema.fields) {
    const int64_t low = spec.kind == FieldKind::kMulti ? kEmptySlot : 0;
    if (spec.has_ids()) columns.push_back(at::randint(low, spec.cardinality, {rows, spec.slots()}, at::kInt));
  }
  return {.ids = at::cat(columns, 1),
          .dense = at::randn({rows, schema.dense_count()}),
          .label = at::randint(2, {rows}).to(at::kFloat)};
}

inline bool same_rows(const Batch& a, const Batch& b) {
  return at::equal(a.ids, b.ids) && at::equal(a.dense, b.dense) && at::equal(a.label, b.label);
}

inline Batch select(const Batch& rows, const at::Tensor& index) {
  return {.ids = rows.ids.index_select(0, index),
          .dense = rows.dense.index_select(0, index),
          .label = rows.label.index_select(0, index)};
}

inline Batch slice(const Batch& rows, int64_t begin, int64_t end) { return select(rows, at::arange(begin, end)); }

// schema.json and one split.
inline void write_split(const std::filesystem::path& folder, const Schema& schema, Split split, const Batch& rows,
                        int64_t rows_per_shard) {
  DatasetWriter writer(folder, schema, split, rows_per_shard);
  writer.append(rows);
  writer.finish();
  write_schema(folder / "schema.json", schema);
}

}  // namespace afm::testing
