#include "libafm/train/finite_check.h"

#include <cmath>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "libafm/nn/model_file.h"

namespace afm {

bool has_finite_norm(const at::Tensor& gradient) {
  const at::NoGradGuard no_grad;
  const at::Tensor flat = gradient.reshape({-1});
  return std::isfinite(at::dot(flat, flat).item<double>());
}

bool has_finite_norm(const std::vector<float>& gradient) {
  const auto size = static_cast<int64_t>(gradient.size());
  return has_finite_norm(at::from_blob(const_cast<float*>(gradient.data()), {size}, at::kFloat));
}

std::string lost_rows(const at::Tensor& logits, const at::Tensor& index) {
  const at::Tensor lost = logits.detach().isfinite().logical_not();
  const int64_t count = lost.sum().item<int64_t>();
  if (count == 0) return {};
  return fmt::format(": {} of {} logits are not finite, row {} of the training set the first", count, logits.numel(),
                     index.masked_select(lost).min().item<int64_t>());
}

std::string lost_tensor(const torch::nn::Module& model) {
  for (const auto& [name, tensor] : state_of(model)) {
    if (tensor.is_floating_point() && !std::isfinite(tensor.sum().item<double>())) return name;
  }
  return {};
}

}  // namespace afm
