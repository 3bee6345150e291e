#pragma once

#include <cstring>

#include <torch/torch.h>

namespace afm::testing {

// Stricter than equality: 0 and -0 differ, and a NaN is itself.
inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || a.dtype() != b.dtype()) return false;
  const at::Tensor left = a.detach().contiguous(), right = b.detach().contiguous();
  return left.numel() == 0 || std::memcmp(left.const_data_ptr(), right.const_data_ptr(), left.nbytes()) == 0;
}

}  // namespace afm::testing
