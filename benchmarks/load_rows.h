#pragma once

// Random requests, with the ids and the logits that libafm on LibTorch makes of them.

#include <cstdint>

#include "benchmarks/load_run.h"
#include "libafm/data/encoder.h"
#include "libafm/nn/model.h"

namespace afm::load {

// Values of the vocabulary, unknown, missing and empty ones; numbers of all sizes. `model` must be in evaluation mode.
Rows random_rows(Model& model, const Encoder& encoder, int64_t count, uint32_t seed);

}  // namespace afm::load
