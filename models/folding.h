#pragma once

// Private: the steps that the models' folded forms have in common; layers and identities are in libafm/nn.

#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/nn/fold_layers.h"
#include "libafm/nn/matching_state.h"
#include "libafm/nn/model.h"
#include "libafm/nn/rank_plan.h"

namespace afm::models {

// `first` is the layer that the MLP starts with; null without an MLP.
std::optional<Refusal> fold_refusal(const Model& model, const nn::EmbeddingImpl& embedding,
                                    const nn::FirstLayer* first);

// The plan of the folded model.
RankPlan folded_plan(const Model& model, const nn::EmbeddingImpl& embedding, const nn::FirstLayer* first);

// Its path where it is of integers: it absorbs the bases, so they are rounded anew.
std::vector<std::string> requantized_layers(const nn::FirstLayer* first);

// A copy, and why it is not folded.
FoldResult kept_as_it_is(const Model& model, const Refusal& refusal);

// The rotation [max k, max k] of latents after which inner products of embeddings are those of latents, and the decoder
// from the turned latents. Undefined, and `decoder` as it was, where bases are not shared (nor with a multi-valued
// field, see Note [Presence] in features.h); also where latents are integers and the basis is not orthonormal, because
// turning would round them anew.
at::Tensor take_shared_space(nn::Decoder& decoder, const nn::EmbeddingImpl& embedding);

// Overwrites a parameter.
void set_values(const at::Tensor& parameter, const at::Tensor& values);

}  // namespace afm::models
