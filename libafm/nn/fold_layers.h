#pragma once

// Private: folding, layer by layer; the identities are in fold_algebra.h. A layer of integers gives the values that it
// computes with, so a folded layer is that of the function, not of the floats behind it.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libafm/nn/embedding.h"
#include "libafm/nn/fold_algebra.h"
#include "libafm/nn/linear.h"
#include "libafm/nn/mlp.h"
#include "libafm/nn/model.h"

namespace afm::nn {

// Why an embedding has no decoder that could be folded; none when it has one.
std::optional<Refusal> refusal_of(const EmbeddingImpl& embedding);
// An empty multi-valued field adds no offset: there the offset is one more row of the basis, behind the others, for a
// coordinate that is 1 in rows that have a value and 0 in others.
Decoder decoder_of(const EmbeddingImpl& embedding);

// A shared basis that is not orthonormal: the gauge of its longest prefix. Changes the basis of `decoder`; the latents
// of every field are to be turned by the leading block of the rotation [max k, max k] that is returned.
at::Tensor take_gauge(Decoder& decoder);
// Turns all latents of a folded embedding, tier by tier.
void turn_latents(EmbeddingImpl& folded, const at::Tensor& rotation);

// The linear layer that a model's MLP starts with.
struct FirstLayer {
  std::shared_ptr<LinearImpl> layer;
  std::string path;
};
FirstLayer first_layer_of(const MlpImpl& mlp, const std::string& path);

// Why a layer cannot read `width` latents and dense features: its rank would be too high for them, and a ReLU between
// its factors forbids to multiply them.
std::optional<Refusal> refusal_of(const FirstLayer& first, int64_t width);
// Its form then: a pair without activation becomes one matrix where that is not larger.
LayerPlan plan_on_latents(const LinearImpl& layer, int64_t width);
// `to` has that form.
void read_latents(const LinearImpl& from, const Decoder& decoder, LinearImpl& to);

// A layer without activation between its factors as one matrix, float64.
Affine affine_of(const LinearImpl& layer);

// `layer` with `affine` behind each of its outputs: y -> scale y + bias.
void append_affine(const LinearImpl& from, const NormAffine& affine, LinearImpl& to);

}  // namespace afm::nn
