#include "libafm/train/finite_check.h"

#include <algorithm>
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
  std::vector<std::string> names;
  std::vector<at::Tensor> sums;
  for (const auto& [name, tensor] : state_of(model)) {
    if (!tensor.is_floating_point()) continue;
    names.push_back(name);
    sums.push_back(tensor.detach().sum().to(at::kDouble));
  }
  if (sums.empty()) return {};
  const at::Tensor together = at::stack(sums).cpu();  // each look at one would make a GPU wait
  const double* values = together.const_data_ptr<double>();
  const auto lost = std::find_if_not(values, values + names.size(), [](double sum) { return std::isfinite(sum); });
  return lost == values + names.size() ? std::string() : names[static_cast<std::size_t>(lost - values)];
}

}  // namespace afm
