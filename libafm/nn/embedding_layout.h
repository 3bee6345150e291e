#pragma once

// Private: where the values of each id lie, in all forms alike. The flat table holds the fields one after the other,
// each as one or more tiers of rows; a row holds its values, then the wide weight if that has a storage of its own.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/nn/embedding.h"

namespace afm::nn {

// Ids [first, end) of a field. The row of id v is the elements start + (v - first) * stride + [0, rank), then wide.
struct TierLayout {
  int64_t first = 0, end = 0;
  int64_t stored = 0;        // rows in the table: 1 when they share one
  int64_t first_stored = 0;  // stored rows of the field before these
  int64_t start = 0, stride = 0, rank = 0;
};

struct FieldLayout {
  // The tiers are few, and frequent ids are in the first ones.
  const TierLayout& tier_of(int64_t id) const {
    const TierLayout* tier = tiers.data();
    while (id >= tier->end) ++tier;
    return *tier;
  }

  int64_t stored_rows() const { return tiers.back().first_stored + tiers.back().stored; }

  int64_t cardinality = 0;
  int64_t first_slot = 0, slots = 1;
  bool multi = false;        // slots may be empty
  int64_t first_row = 0;     // in a dense table
  int64_t first_stored = 0;  // stored rows of the fields before
  int64_t width = 0;         // values of a row before tiers cut them: D, or k_j
  int64_t basis_row = 0;     // first row of the field in `basis`
  int64_t output = 0;        // first column of the field in the output
  std::vector<TierLayout> tiers;
};

struct EmbeddingLayout {
  explicit EmbeddingLayout(const EmbeddingOptions& options);

  void move_to(at::Device device);  // builds the index tensors
  int64_t field_count() const { return static_cast<int64_t>(fields.size()); }
  bool gives_wide() const { return wide || (joint && expands); }

  std::vector<FieldLayout> fields;  // [F]
  std::vector<std::string> names;   // [F]
  int64_t dim = 0, slots = 0, rows = 0, elements = 0;
  int64_t stored_rows = 0;
  int64_t decoded = 0;       // columns of `basis`: D, or D + 1 when joint
  int64_t widest = 0;        // max k, or D when dense
  int64_t basis_rows = 0;    // rows of `basis`, 0 without one
  int64_t output_width = 0;  // F D, or K when there is no basis
  // wide: stored in the table; expands: through a basis; tiered: some field has more than one tier or a shared one
  bool dense = true, wide = false, joint = false, multi = false, shared = false, expands = false, tiered = false;

  at::Device device = at::kCPU;
  at::Tensor field_of_slot;    // [S]
  at::Tensor lowest, highest;  // [S] the ids allowed, kEmptySlot included
  at::Tensor first_row;        // [S] row of id 0, counted over all fields
  // Elements of a row: id * stride + start + column. Per slot; when tiered per tier, for rows counted over all fields.
  at::Tensor start, stride;  // [S] or [T]
  at::Tensor column;         // [S or T, widest + wide]; padding points at the first element
  at::Tensor tier_end;       // [T] first row behind each tier, counted over all fields
  at::Tensor missing;        // [T, widest + wide] whether a column is padding
  at::Tensor basis_index;    // [F * widest] row of `basis`; padding points behind the last one
  at::Tensor latent_index;   // [K] column of the latents in [F * widest]
};

// Throws DataError for the first id, in row order, that is out of range.
[[noreturn]] void fail_id(const EmbeddingLayout& layout, const at::Tensor& ids);

}  // namespace afm::nn
