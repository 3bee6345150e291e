// A build without AFM_CUDA: nothing is fused on a GPU, and models go through lookup() and ATen.

#include "libafm/nn/device_rows.h"
#include "libafm/nn/fused_cross.h"
#include "libafm/nn/fused_mlp.h"
#include "libafm/nn/linear_relu.h"

namespace afm::nn {

bool serves_features(const EmbeddingImpl&) { return false; }

std::optional<EmbeddingFeatures> EmbeddingImpl::features(const at::Tensor&, const at::Tensor&, bool) {
  return std::nullopt;
}

std::optional<at::Tensor> fused_linear_relu(const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  return std::nullopt;
}

std::optional<at::Tensor> fused_linear_row(const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  return std::nullopt;
}

std::optional<at::Tensor> fused_mlp(const at::Tensor&, const std::vector<PlainLayer>&, const PlainHead&) {
  return std::nullopt;
}

std::optional<FusedCross> fused_cross_row(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  return std::nullopt;
}

std::optional<FusedCross> fused_cross_matrices(const at::Tensor&, const std::vector<at::Tensor>&) {
  return std::nullopt;
}

}  // namespace afm::nn
