#include "libafm/compress/statistics.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <unordered_set>
#include <utility>

#include <ATen/ATen.h>

#include "libafm/compress/metric_recorder.h"
#include "libafm/compress/statistics_recorder.h"
#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/data/batch_stream.h"
#include "libafm/metrics/metrics.h"
#include "libafm/metrics/scores.h"

namespace afm {
namespace {

// Hooks on every dense layer of a module tree, for as long as it lives.
class HookScope {
 public:
  HookScope(torch::nn::Module& module, const CollectOptions& options) {
    for (const auto& [path, layer] : nn::layers_of(module)) {
      auto recorder = recorder_for(*layer, options);
      if (recorder) hooked_.push_back({path, std::move(recorder)});
    }
    for (const Hooked& hooked : hooked_) hooked.recorder->attach();
  }
  ~HookScope() {
    for (const Hooked& hooked : hooked_) hooked.recorder->detach();
  }
  HookScope(const HookScope&) = delete;
  HookScope& operator=(const HookScope&) = delete;

  // One backward pass from the logits of the batch that just ran to the outputs of all layers.
  void add_metric(const at::Tensor& logits) const {
    std::vector<torch::autograd::Edge> edges;
    std::vector<std::size_t> counts;
    for (const Hooked& hooked : hooked_) {
      const auto own = hooked.recorder->take_outputs();
      edges.insert(edges.end(), own.begin(), own.end());
      counts.push_back(own.size());
    }
    const std::vector<at::Tensor> gradients = weighted_gradients(logits, edges);
    auto next = gradients.begin();
    for (std::size_t i = 0; i < hooked_.size(); ++i) {
      const auto end = next + static_cast<std::ptrdiff_t>(counts[i]);
      hooked_[i].recorder->add_gradients({next, end});
      next = end;
    }
  }

  void finish(Statistics& statistics, double finite_rows) const {
    for (const Hooked& hooked : hooked_) {
      if (hooked.recorder->reached()) {
        statistics.layers[hooked.path] = hooked.recorder->finish(hooked.path, finite_rows);
      } else {
        statistics.unreached.push_back(hooked.path);
      }
    }
  }

 private:
  struct Hooked {
    std::string path;
    std::unique_ptr<LayerRecorder> recorder;
  };
  std::vector<Hooked> hooked_;
};

std::optional<at::Tensor> call(const NextLogits& next_logits, bool with_gradient) {
  const at::AutoGradMode gradient(with_gradient);
  return next_logits();
}

int64_t parameter_bytes_of(const torch::nn::Module& module) {
  std::unordered_set<const at::TensorImpl*> seen;  // a module may be registered twice
  int64_t bytes = 0;
  for (const at::Tensor& parameter : module.parameters()) {
    if (seen.insert(parameter.unsafeGetTensorImpl()).second) bytes += static_cast<int64_t>(parameter.nbytes());
  }
  return bytes;
}

Batch first_rows(const Batch& batch, int64_t rows) {
  const auto narrowed = [rows](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.narrow(0, 0, rows) : tensor;
  };
  return {narrowed(batch.ids), narrowed(batch.dense), narrowed(batch.label)};
}

}  // namespace

int64_t LayerStatistics::parameters() const {
  if (!is_embedding) return out_features * in_features + (bias ? out_features : 0);
  return std::accumulate(cardinalities.begin(), cardinalities.end(), int64_t{0}) * (embedding_dim + (wide ? 1 : 0));
}

Statistics collect_statistics(torch::nn::Module& module, const NextLogits& next_logits, CollectOptions options) {
  const at::NoGradGuard no_grad;
  const EvaluationMode evaluation(module);
  const GraphScope graph(module, options.metric);
  const HookScope hooks(module, options);
  Statistics statistics;
  double finite_rows = 0.0;
  while (const std::optional<at::Tensor> logits = call(next_logits, options.metric)) {
    statistics.rows += logits->dim() == 0 ? 1 : logits->size(0);
    if (!options.metric) continue;
    finite_rows += logits->isfinite().sum().item<double>();
    hooks.add_metric(*logits);
  }
  if (statistics.rows == 0) fail<DataError>("collect_statistics: next_logits must give at least one row, got none");
  hooks.finish(statistics, finite_rows);
  statistics.whole_training_set = options.whole_training_set;
  statistics.parameters = parameter_count(module);
  statistics.parameter_bytes = parameter_bytes_of(module);
  statistics.bytes = byte_count(module);
  return statistics;
}

NextLogits logits_of(Model& model, const Dataset& dataset, int64_t max_rows, int64_t batch_size) {
  if (max_rows < 0) fail<std::invalid_argument>("logits_of: max_rows must be at least 0, got {}", max_rows);
  check_fits(model.schema(), dataset.schema());
  const bool cut = max_rows > 0 && max_rows < dataset.size();
  const auto stream = std::make_shared<BatchStream>(dataset, BatchOptions{.batch_size = batch_size, .shuffle = cut});
  return [&model, stream, left = cut ? max_rows : dataset.size()]() mutable -> std::optional<at::Tensor> {
    if (left == 0) return std::nullopt;
    const std::optional<Batch> batch = stream->next();
    if (!batch) return std::nullopt;
    const int64_t rows = std::min(left, batch->rows());
    left -= rows;
    const TrustedIds trusted(model);
    return model.forward(first_rows(*batch, rows).to(model.device()));
  };
}

}  // namespace afm
