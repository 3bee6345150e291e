#pragma once

// Private: where the values of each id lie, in the dense and in the factorized form alike. The values of field j, id v
// are the elements start_j + v * stride_j + [0, width_j) of the flat table; the wide weight, if any, is the one after.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/nn/embedding.h"

namespace afm::nn {

struct FieldLayout {
  int64_t cardinality = 0;
  int64_t first_slot = 0, slots = 1;
  int64_t first_row = 0;
  int64_t start = 0, stride = 0, width = 0;
  int64_t basis_row = 0;  // first row of the field in `basis`
};

struct EmbeddingLayout {
  explicit EmbeddingLayout(const EmbeddingOptions& options);

  void move_to(at::Device device);  // builds the index tensors
  int64_t field_count() const { return static_cast<int64_t>(fields.size()); }

  std::vector<FieldLayout> fields;  // [F]
  std::vector<std::string> names;   // [F]
  int64_t dim = 0, slots = 0, rows = 0, elements = 0;
  int64_t widest = 0;      // max k, or D when dense
  int64_t basis_rows = 0;  // rows of `basis`, 0 when dense
  bool dense = true, wide = false, multi = false, shared = false;

  at::Device device = at::kCPU;
  at::Tensor field_of_slot;    // [S]
  at::Tensor lowest, highest;  // [S] the ids allowed, kEmptySlot included
  at::Tensor first_row;        // [S] dense: row of id 0
  at::Tensor start, stride;    // [S] factorized: element of id 0, elements per id
  at::Tensor column;           // [S, widest + wide] element within the row; padding points at the first one
  at::Tensor basis_index;      // [F * widest] row of `basis`; padding points behind the last one
};

// Throws DataError for the first id, in row order, that is out of range.
[[noreturn]] void fail_id(const EmbeddingLayout& layout, const at::Tensor& ids);

}  // namespace afm::nn
