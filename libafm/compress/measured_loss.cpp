#include <memory>
#include <string>

#include <ATen/ATen.h>

#include "libafm/compress/divergence.h"
#include "libafm/compress/factorize.h"
#include "libafm/compress/plan.h"

namespace afm {
MeasureLoss measured_by_kl(const Model& model, const Statistics& statistics, const Dataset& dataset, int64_t max_rows) {
  const std::shared_ptr<Model> original = copy_of(model);
  const at::Tensor before = all_logits(*original, dataset, max_rows);
  return [=, &statistics, &dataset](const std::string& layer, const LayerPlan& plan) {
    const std::shared_ptr<Model> changed = factorize(*original, statistics, {{layer, plan}});
    return divergence(before, all_logits(*changed, dataset, max_rows)).mean().item<double>();
  };
}

}  // namespace afm
