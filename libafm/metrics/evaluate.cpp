#include <algorithm>
#include <stdexcept>

#include <ATen/ATen.h>

#include "libafm/core/fail.h"
#include "libafm/metrics/metrics.h"
#include "libafm/metrics/scores.h"

namespace afm {

TrustedIds::TrustedIds(Model& model) {
  if (model.device().is_cpu()) return;
  for (const auto& module : model.modules(/*include_self=*/false)) {
    auto* embedding = dynamic_cast<nn::EmbeddingImpl*>(module.get());
    if (embedding == nullptr || !embedding->check_ids) continue;
    embedding->check_ids = false;
    unchecked_.push_back(embedding);
  }
}

TrustedIds::~TrustedIds() {
  for (auto* embedding : unchecked_) embedding->check_ids = true;
}

void check_logits(const Model& model, const at::Tensor& logits, int64_t rows) {
  if (logits.dim() == 1 && logits.size(0) == rows) return;
  fail<std::invalid_argument>("model '{}' must give one logit per row, [{}], got {}", model.kind(), rows,
                              c10::str(logits.sizes()));
}

Scores score(Model& model, const Dataset& dataset, const EvaluateOptions& options) {
  if (options.batch_size < 1) {
    fail<std::invalid_argument>("EvaluateOptions.batch_size must be at least 1, got {}", options.batch_size);
  }
  check_fits(model.schema(), dataset.schema());
  const at::NoGradGuard no_grad;
  const EvaluationMode evaluation(model);
  const TrustedIds trusted(model);
  const at::Device device = model.device();
  const auto on_device = at::TensorOptions(device);
  const int64_t rows = dataset.size();
  Scores scores{at::empty({rows}, on_device.dtype(model.dtype())), at::empty({rows}, on_device.dtype(at::kFloat))};
  for (int64_t begin = 0; begin < rows; begin += options.batch_size) {
    const int64_t end = std::min(begin + options.batch_size, rows);
    const Batch batch = dataset.range(begin, end).to(device);
    const at::Tensor logits = model.forward(batch);
    check_logits(model, logits, end - begin);
    scores.logits.slice(0, begin, end).copy_(logits);
    scores.labels.slice(0, begin, end).copy_(batch.label);
    if (options.on_progress) options.on_progress(end);
  }
  return scores;
}

at::Tensor predict(Model& model, const Dataset& dataset, const EvaluateOptions& options) {
  return score(model, dataset, options).logits;
}

Metrics evaluate(Model& model, const Dataset& dataset, const EvaluateOptions& options) {
  const Scores scores = score(model, dataset, options);
  return {auc(scores.logits, scores.labels), logloss(scores.logits, scores.labels), dataset.size(),
          unknown_shares(dataset)};
}

}  // namespace afm
