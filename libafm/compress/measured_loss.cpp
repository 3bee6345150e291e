#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "libafm/compress/factorize.h"
#include "libafm/compress/plan.h"

namespace afm {
namespace {

at::Tensor all_logits(Model& model, const Dataset& dataset, int64_t max_rows) {
  const at::NoGradGuard no_grad;
  const EvaluationMode evaluation(model);
  std::vector<at::Tensor> parts;
  const NextLogits next = logits_of(model, dataset, max_rows);
  while (std::optional<at::Tensor> logits = next()) parts.push_back(logits->to(at::kCPU, at::kDouble));
  return at::cat(parts);
}

// Mean KL(p || q) of the Bernoulli distributions that two rows of logits give.
double mean_divergence(const at::Tensor& before, const at::Tensor& after) {
  const auto term = [](const at::Tensor& s, const at::Tensor& t) {
    return s.sigmoid() * (at::log_sigmoid(s) - at::log_sigmoid(t));
  };
  return (term(before, after) + term(-before, -after)).mean().item<double>();
}

}  // namespace

MeasureLoss measured_by_kl(const Model& model, const Statistics& statistics, const Dataset& dataset, int64_t max_rows) {
  const std::shared_ptr<Model> original = copy_of(model);
  const at::Tensor before = all_logits(*original, dataset, max_rows);
  return [=, &statistics, &dataset](const std::string& layer, const LayerPlan& plan) {
    const std::shared_ptr<Model> changed = factorize(*original, statistics, {{layer, plan}});
    return mean_divergence(before, all_logits(*changed, dataset, max_rows));
  };
}

}  // namespace afm
