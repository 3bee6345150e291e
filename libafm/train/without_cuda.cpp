// A build without AFM_CUDA: nothing is fused on a GPU, steps are not recorded, and row-wise Adagrad is RowAdagrad on
// every device.

#include "libafm/train/device_adagrad.h"
#include "libafm/train/device_lazy_adam.h"
#include "libafm/train/fused.h"
#include "libafm/train/graphed_step.h"

namespace afm {

std::unique_ptr<GraphedStep> GraphedStep::make(at::Device) { return nullptr; }

std::unique_ptr<Optimizer> device_adagrad(nn::EmbeddingImpl&, const std::string&, double, double, bool) {
  return nullptr;
}

std::unique_ptr<Optimizer> device_lazy_adam(nn::EmbeddingImpl&, const std::string&, double, bool) { return nullptr; }

std::optional<at::Tensor> fused_logloss(const at::Tensor&, const at::Tensor&) { return std::nullopt; }

bool fused_loss_sum(const at::Tensor&, int64_t, const at::Tensor&, const at::Tensor&) { return false; }

bool fused_adam(const std::vector<AdamSlot>&, const at::Tensor&, double) { return false; }

std::optional<Batch> fused_gather(const Batch&, const at::Tensor&) { return std::nullopt; }

}  // namespace afm
