#pragma once

// Private: the generators that dropout draws from: nn::dropout_generator(), and the default one of a GPU.

#include <cstdint>
#include <string_view>

#include <c10/core/Device.h>

#include "libafm/core/tensors.h"

namespace afm {

void seed_random(int64_t seed, at::Device device);

TensorMap random_state(at::Device device);  // "cpu", and "cuda" for a GPU
// A GPU's generator stays as it is when `state` comes from a run on the CPU. Throws FormatError for a damaged state.
void set_random_state(const TensorMap& state, at::Device device, std::string_view where);

}  // namespace afm
