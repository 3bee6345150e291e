#pragma once

// Private: LazyAdam on a GPU for a model that reads its table through EmbeddingImpl::features(). Nothing in it waits
// for the device, so a step can be recorded and repeated.

#include <memory>
#include <string>

#include "libafm/nn/embedding.h"
#include "libafm/train/optimizer.h"

namespace afm {

// State as LazyAdam; `deterministic` as in TrainOptions. Null where the embedding has no features().
std::unique_ptr<Optimizer> device_lazy_adam(nn::EmbeddingImpl& embedding, const std::string& name, double l2,
                                            bool deterministic);

}  // namespace afm
