#pragma once

// Folding: the same function with fewer layers. Nothing is fitted, logits agree to rounding error.
//
//   FoldResult folded = fold(*factorize(*model, statistics, plan));

#include "libafm/nn/model.h"

namespace afm {

// A factorized embedding gives e_j = basis_j' z_j + offset_j. What is linear in the embeddings can read the latents z
// [B, K], K = k_1 + .. + k_F, instead: its weights absorb the bases, its bias the offsets. The folded model has an
// embedding with Basis::kNone, is saved, loaded, trained and compressed like any other, and reads no embedding of width
// D at all:
//   WideDeep    the first layer of the MLP; joint wide weights become `wide_latent` [K]
//   DCN         with vectors: the first layer, and the cross network as L + 1 vectors over latents and dense features
//   DeepFM      the first layer; the factorization machine keeps the bases ("interaction" decoded), or with a shared
//               basis runs on the latents (latent), turned so that the basis is orthonormal (thin QR; upper triangular,
//               so ranks and tiers stay nested)
// An empty multi-valued field adds no offset: what the layers read has one more coordinate for each such field, 1 where
// a row has a value for it and else 0.
// A first layer that is a pair without activation becomes one matrix where that is not larger.
//
// `refused` names what cannot be folded, and the model is then a copy: a dense embedding, a cross network of matrices,
// a layer whose ReLU between the factors is in the way. A model that is folded already is copied, without a refusal.
//
// Latents of integers keep their codes and scales. A first layer of integers changes, whose rounding is then another:
// `requantized` names it. Fold before training with integers where that matters.
FoldResult fold(const Model& model);

// Batch norm as it is in evaluation becomes part of the layer before it: every nn::Mlp below loses its norms, and the
// option "batch_norm" is false. Logits in evaluation agree to rounding error; training goes on without batch norm.
// A layer of integers is rounded anew and named in `requantized`, also with a scale per row: the scale would absorb the
// factor, but it is a bfloat16. A model without batch norm is copied, a model without the option is refused.
FoldResult fold_batch_norm(const Model& model);

}  // namespace afm
