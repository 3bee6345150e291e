#pragma once

// Private: RowAdagrad on a GPU for a model that reads its table through EmbeddingImpl::features(): gradients are added
// up and applied row by row in one launch, and never exist as a tensor.

#include <memory>
#include <string>

#include "libafm/nn/embedding.h"
#include "libafm/train/optimizer.h"

namespace afm {

// Options and state as RowAdagrad; `deterministic` as in TrainOptions. Null where the embedding has no features().
std::unique_ptr<Optimizer> device_adagrad(nn::EmbeddingImpl& embedding, const std::string& name, double l2,
                                          double scale, bool deterministic);

}  // namespace afm
