#include "libafm/compress/predicted_change.h"

#include <list>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "libafm/compress/divergence.h"
#include "libafm/compress/metric_recorder.h"
#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/nn/embedding.h"
#include "libafm/nn/layer.h"
#include "libafm/nn/linear.h"
#include "libafm/nn/matching_state.h"

namespace afm {
namespace {

// A layer of `before` with its other form, and what the hook saw in the batch that just ran.
struct Watched {
  std::string path;
  nn::Layer* layer = nullptr;
  OutputEdges edges = {};
  std::vector<at::Tensor> changes = {};  // dy of each output
  double sum = 0.0;                      // of (a' dy)^2 p (1 - p) over the rows so far
};

void add_output(Watched& watched, const at::Tensor& output, const at::Tensor& other) {
  if (!output.defined() || output.numel() == 0) return;
  if (!other.defined() || other.sizes() != output.sizes()) {
    fail<std::invalid_argument>(
        "predicted_change: layer '{}' must have outputs of one shape in both models, [{}], got {}", watched.path,
        fmt::join(output.sizes(), ", "),
        other.defined() ? fmt::format("[{}]", fmt::join(other.sizes(), ", ")) : "none");
  }
  watched.edges.add(output);
  watched.changes.push_back(other.to(at::kDouble) - output.detach().to(at::kDouble));
}

void watch(nn::LinearImpl& before, nn::LinearImpl& after, Watched& watched) {
  if (before.options.in_features != after.options.in_features) {
    fail<std::invalid_argument>("predicted_change: layer '{}' must read the same input in both models, {} wide, got {}",
                                watched.path, before.options.in_features, after.options.in_features);
  }
  before.set_output_hook([&](const at::Tensor& input, const at::Tensor& output) {
    const at::NoGradGuard no_grad;
    add_output(watched, output, after.forward(input.detach()));
  });
}

void watch(nn::EmbeddingImpl& before, nn::EmbeddingImpl& after, Watched& watched) {
  before.set_lookup_hook([&](const at::Tensor& ids, const nn::EmbeddingOutput& output) {
    const at::NoGradGuard no_grad;
    const nn::EmbeddingOutput other = after.lookup(ids);
    add_output(watched, output.values, other.values);
    add_output(watched, output.wide, other.wide);
    add_output(watched, output.latents, other.latents);
  });
}

// Whether both are of this kind; then it watches them.
template <typename LayerImpl>
bool watch_as(nn::Layer& before, nn::Layer* after, Watched& watched) {
  auto* first = dynamic_cast<LayerImpl*>(&before);
  auto* second = dynamic_cast<LayerImpl*>(after);
  if (!first || !second) return false;
  watch(*first, *second, watched);
  return true;
}

// Hooks on every layer of `before`, for as long as it lives.
class WatchScope {
 public:
  WatchScope(torch::nn::Module& before, torch::nn::Module& after) {
    const auto found = nn::layers_of(after);
    const std::map<std::string, nn::Layer*> others(found.begin(), found.end());
    for (const auto& [path, layer] : nn::layers_of(before)) {
      const auto other = others.find(path);
      nn::Layer* twin = other == others.end() ? nullptr : other->second;
      Watched& watched = watched_.emplace_back(Watched{path, layer});
      if (watch_as<nn::LinearImpl>(*layer, twin, watched) || watch_as<nn::EmbeddingImpl>(*layer, twin, watched)) {
        continue;
      }
      remove_hooks();
      fail<std::invalid_argument>("predicted_change: layer '{}' must be in both models, and of one kind", path);
    }
  }
  ~WatchScope() { remove_hooks(); }
  WatchScope(const WatchScope&) = delete;
  WatchScope& operator=(const WatchScope&) = delete;

  // What the batch that just ran adds to the sums of the layers; how far they move the logit together, times
  // sqrt(p (1 - p)): [B].
  at::Tensor add(const at::Tensor& logits) {
    std::vector<torch::autograd::Edge> edges;
    for (Watched& watched : watched_) {
      const auto own = watched.edges.take();
      edges.insert(edges.end(), own.begin(), own.end());
    }
    const std::vector<at::Tensor> gradients = weighted_gradients(logits, edges);
    const int64_t rows = logits.numel();
    at::Tensor together = at::zeros({rows}, logits.options().dtype(at::kDouble).requires_grad(false));
    auto gradient = gradients.begin();
    for (Watched& watched : watched_) {
      at::Tensor own = at::zeros_like(together);
      for (const at::Tensor& change : std::exchange(watched.changes, {})) {
        if (gradient->defined()) own += (gradient->to(at::kDouble) * change).reshape({rows, -1}).sum(1);
        ++gradient;
      }
      own = at::where(logits.detach().reshape({-1}).isfinite(), own, 0.0);
      watched.sum += own.square().sum().item<double>();
      together += own;
    }
    return together;
  }

  std::map<std::string, double> sums() const {
    std::map<std::string, double> sums;
    for (const Watched& watched : watched_) sums[watched.path] = watched.sum;
    return sums;
  }

 private:
  void remove_hooks() {
    for (const Watched& watched : watched_) {
      watched.layer->set_output_hook({});
      if (auto* embedding = dynamic_cast<nn::EmbeddingImpl*>(watched.layer)) embedding->set_lookup_hook({});
    }
  }

  std::list<Watched> watched_;  // the hooks hold references
};

std::optional<at::Tensor> row_of_logits(const NextLogits& next_logits, bool with_gradient) {
  const at::AutoGradMode gradient(with_gradient);
  const std::optional<at::Tensor> logits = next_logits();
  return logits ? std::optional(logits->reshape({-1})) : std::nullopt;
}

}  // namespace

double PredictedChange::sum() const {
  return std::accumulate(layers.begin(), layers.end(), 0.0,
                         [](double total, const auto& layer) { return total + layer.second; });
}

PredictedChange predicted_change(torch::nn::Module& before, const NextLogits& logits_before, torch::nn::Module& after,
                                 const NextLogits& logits_after) {
  const at::NoGradGuard no_grad;
  const EvaluationMode before_evaluates(before), after_evaluates(after);
  const GraphScope graph(before, /*active=*/true);
  WatchScope watching(before, after);
  PredictedChange change;
  while (const std::optional<at::Tensor> logits = row_of_logits(logits_before, /*with_gradient=*/true)) {
    const std::optional<at::Tensor> others = row_of_logits(logits_after, /*with_gradient=*/false);
    if (!others || others->sizes() != logits->sizes()) {
      fail<std::invalid_argument>("predicted_change: both models must give logits of the same rows");
    }
    change.together += watching.add(*logits).square().sum().item<double>();
    const at::Tensor apart = divergence(logits->detach(), *others), finite = apart.isfinite();
    change.measured += at::where(finite, apart, 0.0).sum().item<double>();
    change.rows += finite.sum().item<int64_t>();
  }
  if (change.rows == 0) fail<DataError>("predicted_change: at least one row must have finite logits");
  const auto rows = static_cast<double>(change.rows);
  change.layers = watching.sums();
  for (auto& [path, loss] : change.layers) loss *= 0.5 / rows;
  change.together *= 0.5 / rows;
  change.measured /= rows;
  return change;
}

PredictedChange predicted_change(Model& before, Model& after, const Dataset& dataset, int64_t max_rows) {
  return predicted_change(before, logits_of(before, dataset, max_rows), after, logits_of(after, dataset, max_rows));
}

std::shared_ptr<Model> with_bits(const Model& model, const RankPlan& plan) {
  const at::NoGradGuard no_grad;
  RankPlan form = nn::rank_plan_of(model);
  for (auto& [path, layer] : form) {
    layer.bits = Bits::kFloat;
    layer.scale = ScaleBy::kRow;
  }
  for (const auto& [path, layer] : plan) {
    form[path].bits = layer.bits;
    form[path].scale = layer.scale;
  }
  const nn::BlankScope blank(model.device(), model.dtype());
  std::shared_ptr<Model> copy = model.build_like(form);
  copy_matching(*copy, model);
  return copy;
}

}  // namespace afm
