#pragma once

// What tests of the models share: a schema with one field of each kind, and batches for it.

#include <string>

#include <torch/torch.h>

#include "libafm/data/batch.h"
#include "libafm/data/schema.h"

namespace afm::testing {

inline Schema click_schema(int64_t dense = 2, int64_t users = 10) {
  Schema schema;
  schema.fields = {FieldSpec{.name = "user", .cardinality = users},
                   FieldSpec{.name = "genres", .kind = FieldKind::kMulti, .cardinality = 6, .max_values = 3}};
  for (int64_t i = 0; i < dense; ++i) {
    schema.fields.push_back(FieldSpec{.name = "number" + std::to_string(i), .kind = FieldKind::kNumeric});
  }
  return schema;
}

inline Batch click_batch(int64_t rows, int64_t dense = 2) {
  const auto users = torch::randint(10, {rows, 1});
  const auto genres = torch::randint(kEmptySlot, 6, {rows, 3});
  return {torch::cat({users, genres}, 1).to(torch::kInt32), torch::randn({rows, dense}),
          torch::randint(2, {rows}).to(torch::kFloat32)};
}

}  // namespace afm::testing
