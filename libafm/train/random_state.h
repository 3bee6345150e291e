#pragma once

// Private: the generators that dropout draws from.

#include <string_view>

#include <c10/core/Device.h>

#include "libafm/core/tensors.h"

namespace afm {

TensorMap random_state(at::Device device);  // "cpu", and "cuda" for a GPU
// A GPU's generator stays as it is when `state` comes from a run on the CPU. Throws FormatError for a damaged state.
void set_random_state(const TensorMap& state, at::Device device, std::string_view where);

}  // namespace afm
