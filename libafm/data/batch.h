#pragma once

// One batch of encoded rows. Sizes, here and in every comment of libafm:
//   B rows, S id slots, F fields with ids, D embedding width, Q dense features, H hidden width, k rank.
// A categorical field has one slot; a multi-valued field has as many as its longest row, the empty ones hold
// kEmptySlot.

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace afm {

inline constexpr int64_t kEmptySlot = -1;

struct Batch {
  at::Tensor ids;    // [B, S] int32 or int64, local to their field; 0 is the unknown value
  at::Tensor dense;  // [B, Q] float32; undefined or [B, 0] when Q is 0
  at::Tensor label;  // [B] float32, 0 or 1; undefined when only scoring

  int64_t rows() const { return ids.defined() ? ids.size(0) : (dense.defined() ? dense.size(0) : 0); }
  Batch to(at::Device device) const;
};

}  // namespace afm
