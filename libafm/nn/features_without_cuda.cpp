// A build without AFM_CUDA: no embedding has features(), and models go through lookup().

#include "libafm/nn/device_rows.h"

namespace afm::nn {

bool serves_features(const EmbeddingImpl&) { return false; }

std::optional<EmbeddingFeatures> EmbeddingImpl::features(const at::Tensor&, const at::Tensor&, bool) {
  return std::nullopt;
}

}  // namespace afm::nn
