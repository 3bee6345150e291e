#include "libafm/train/loss.h"

#include <ATen/ATen.h>

#include "libafm/train/fused.h"

namespace afm {
namespace {

// Linear only where float64 cannot tell; at::softplus's own threshold of 20 is meant for float32.
at::Tensor stable_softplus(const at::Tensor& x) { return at::softplus(x, /*beta=*/1, /*threshold=*/40); }

void check_pair(const char* function, const at::Tensor& logits, const at::Tensor& targets) {
  TORCH_CHECK(logits.sizes() == targets.sizes(), function, ": expected two tensors of one shape, got ", logits.sizes(),
              " and ", targets.sizes());
}

}  // namespace

at::Tensor logloss_of(const at::Tensor& logits, const at::Tensor& labels) {
  check_pair("logloss_of", logits, labels);
  if (const auto loss = fused_logloss(logits, labels)) return *loss;
  return (stable_softplus(logits) - logits * labels).mean();
}

// With p = sigmoid(t): KL = softplus(s) - softplus(t) - p (s - t), which needs no logarithm of a probability.
at::Tensor distillation_loss(const at::Tensor& student, const at::Tensor& teacher, double temperature,
                             const at::Tensor& weights) {
  check_pair("distillation_loss", student, teacher);
  const at::Tensor s = student / temperature, t = teacher / temperature;
  const at::Tensor kl = stable_softplus(s) - stable_softplus(t) - at::sigmoid(t) * (s - t);
  if (!weights.defined()) return kl.mean() * (temperature * temperature);
  check_pair("distillation_loss", kl, weights);
  return (kl * weights).mean() * (temperature * temperature);
}

}  // namespace afm
