#pragma once

// Private: a parameter of a layer that is held as floats (its master, which training changes) and computed with as
// integers times scales.

#include <cstdint>
#include <mutex>
#include <utility>

#include "libafm/nn/quantize.h"
#include "libafm/nn/quantize_rounding.h"

namespace afm::nn {

class IntegerWeight {
 public:
  IntegerWeight(Bits chosen, ScaleGroups shared) : bits(chosen), groups(std::move(shared)) {}

  // What a forward pass computes with. The gradient passes unchanged.
  //
  // keep (a layer in evaluation mode): without gradient on the CPU the result is kept for the next call, until the
  // parameter changes. LibTorch does not count every change (its fused optimizers, `.data`), so any call with gradient
  // or in training mode drops it too, and so does forget(), which a layer calls when its mode is set. Thread-safe.
  at::Tensor values(const at::Tensor& parameter, bool keep);
  void forget();

  const Bits bits;
  const ScaleGroups groups;

 private:
  at::Tensor rounded(const at::Tensor& x);
  GroupIndex index_on(at::Device device);

  std::mutex index_mutex_, mutex_;
  GroupIndex index_;  // on the device of the last call
  at::Tensor kept_;
  at::Tensor kept_of_;  // what kept_ is the value of: holds the memory, so that its address means nothing else
  uint32_t kept_version_ = 0;
};

}  // namespace afm::nn
