#pragma once

// Private: the rules on EmbeddingOptions. Both throw std::invalid_argument that names the field, the rule and the
// value.

#include "libafm/nn/embedding.h"

namespace afm::nn {

// The fields that a plan states (ranks, basis, joint, tiers, bits, scale); what has no effect gets its default.
EmbeddingOptions checked_form(EmbeddingOptions options);
// All fields.
EmbeddingOptions checked_options(EmbeddingOptions options);

}  // namespace afm::nn
