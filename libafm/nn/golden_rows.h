#pragma once

// Private: a few encoded rows with the logits that a model gives them. They travel in its file, so that whoever scores
// with it can tell a wrong build, a wrong byte order or a damaged file before it answers.
//   golden.ids     I32 [4, S]  all ids 0; all ids 1 (0 where a field has no other); two rows of random ids, of which
//                              the second leaves slots of multi-valued fields empty
//   golden.dense   F32 [4, Q]  standard normal; absent when Q is 0
//   golden.logits  F32 [4]     in evaluation mode

#include <string_view>

#include "libafm/core/tensors.h"
#include "libafm/nn/model.h"

namespace afm {

inline constexpr std::string_view kGoldenPrefix = "golden.";

// The three tensors, on the CPU; the same rows for the same schema. Nothing where forward fails or gives logits that
// are not finite, and for a model that computes below float32, whose logits depend on where it runs.
TensorMap golden_rows_of(const Model& model);

}  // namespace afm
