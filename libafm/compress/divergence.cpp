#include "libafm/compress/divergence.h"

#include <optional>
#include <vector>

#include <ATen/ATen.h>

#include "libafm/compress/statistics.h"

namespace afm {

at::Tensor divergence(const at::Tensor& before, const at::Tensor& after) {
  const at::Tensor s = before.to(at::kDouble), t = after.to(at::kDouble);
  const auto term = [](const at::Tensor& a, const at::Tensor& b) {
    return a.sigmoid() * (at::log_sigmoid(a) - at::log_sigmoid(b));
  };
  return term(s, t) + term(-s, -t);
}

at::Tensor all_logits(Model& model, const Dataset& dataset, int64_t max_rows) {
  const at::NoGradGuard no_grad;
  const EvaluationMode evaluation(model);
  std::vector<at::Tensor> parts;
  const NextLogits next = logits_of(model, dataset, max_rows);
  while (std::optional<at::Tensor> logits = next()) parts.push_back(logits->to(at::kCPU, at::kDouble));
  return at::cat(parts);
}

}  // namespace afm
