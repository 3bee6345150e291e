#include "libafm/compress/refits.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/modules/batchnorm.h>

#include "libafm/compress/hidden_units.h"
#include "libafm/compress/layer_refit.h"
#include "libafm/core/fail.h"
#include "libafm/nn/linear.h"

namespace afm {
namespace {

// A linear layer in both models.
struct LinearPair {
  std::string path;
  nn::LinearImpl* original = nullptr;
  nn::LinearImpl* compressed = nullptr;
  torch::nn::BatchNorm1dImpl* norm = nullptr;  // of the compressed model, right behind it
  std::string norm_path = {};
  at::Tensor outputs = {};  // of the original, those that the compressed layer gives; undefined: all
  bool first = false;

  at::Tensor target(const at::Tensor& output) const {
    const at::Tensor rows = output.reshape({-1, original->options.out_features});
    return outputs.defined() ? rows.index_select(1, outputs.to(rows.device())) : rows.clone();
  }
};

// Parameters and buffers as they were.
class Snapshot {
 public:
  explicit Snapshot(const std::vector<at::Tensor>& tensors) {
    for (const at::Tensor& tensor : tensors) {
      if (tensor.defined()) saved_.emplace_back(tensor, tensor.detach().clone());
    }
  }
  void restore() const {
    for (const auto& [tensor, value] : saved_) at::Tensor(tensor).copy_(value);
  }

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> saved_;
};

Snapshot snapshot_of(const nn::LinearImpl& layer) {
  return Snapshot({layer.weight, layer.bias, layer.down, layer.down_bias, layer.up, layer.up_bias});
}

Snapshot snapshot_of(const torch::nn::BatchNorm1dImpl& norm) { return Snapshot({norm.running_mean, norm.running_var}); }

double kl_sum(const at::Tensor& before, const at::Tensor& after) {
  const auto term = [](const at::Tensor& s, const at::Tensor& t) {
    return s.sigmoid() * (at::log_sigmoid(s) - at::log_sigmoid(t));
  };
  const at::Tensor s = before.to(at::kDouble), t = after.to(at::kDouble);
  return (term(s, t) + term(-s, -t)).sum().item<double>();
}

// Both models on the same rows, again and again.
class Rehearsal {
 public:
  using Observer = std::function<void(const at::Tensor& target, const at::Tensor& logits)>;

  Rehearsal(Model& original, Model& compressed, const Dataset& dataset, int64_t max_rows)
      : original_(original), compressed_(compressed), dataset_(dataset), max_rows_(max_rows) {}

  // Mean KL; `observer` gets the logits of both after each batch.
  double run(const Observer& observer) const {
    const NextLogits targets = logits_of(original_, dataset_, max_rows_);
    const NextLogits attempts = logits_of(compressed_, dataset_, max_rows_);
    double sum = 0.0, rows = 0.0;
    while (const auto target = targets()) {
      const at::Tensor logits = *attempts();
      sum += kl_sum(*target, logits);
      rows += static_cast<double>(logits.numel());
      observer(*target, logits);
    }
    return rows == 0.0 ? 0.0 : sum / rows;
  }

 private:
  Model &original_, &compressed_;
  const Dataset& dataset_;
  int64_t max_rows_;
};

// Removes the hooks it was told of.
class Hooks {
 public:
  ~Hooks() {
    for (nn::Layer* layer : hooked_) layer->set_output_hook({});
  }
  void set(nn::Layer& layer, nn::OutputHook hook) {
    layer.set_output_hook(std::move(hook));
    hooked_.push_back(&layer);
  }

 private:
  std::vector<nn::Layer*> hooked_;
};

// What a layer's own map starts from: its input, or its latent where an activation makes the rest of it linear.
at::Tensor linear_input(const nn::LinearImpl& layer, const at::Tensor& input) {
  if (layer.options.activation == FactorActivation::kNone) return input.clone();
  return at::linear(input, layer.down, layer.down_bias).relu_();
}

AffineMap map_of(const nn::LinearImpl& layer) {
  const auto number = [](const at::Tensor& tensor) { return tensor.detach().to(at::kCPU, at::kDouble); };
  if (layer.is_dense()) return {number(layer.weight), number(layer.bias)};
  if (layer.options.activation != FactorActivation::kNone) return {number(layer.up), number(layer.up_bias)};
  return {at::mm(number(layer.up), number(layer.down)),
          at::mv(number(layer.up), number(layer.down_bias)) + number(layer.up_bias)};
}

bool is_plain_pair(const nn::LinearImpl& layer) {
  return !layer.is_dense() && layer.options.activation == FactorActivation::kNone;
}

void set_map(nn::LinearImpl& layer, const AffineMap& map) {
  (layer.is_dense() ? layer.weight : layer.up).copy_(map.weight);
  (layer.is_dense() ? layer.bias : layer.up_bias).copy_(map.bias);
}

void set_pair(nn::LinearImpl& layer, const Factors& factors) {
  layer.down.copy_(factors.down);
  layer.down_bias.copy_(factors.down_bias);
  layer.up.copy_(factors.up);
  layer.up_bias.copy_(factors.up_bias);
}

class Refitting {
 public:
  Refitting(const Rehearsal& rehearsal, const Statistics& statistics, const RefitOptions& options)
      : rehearsal_(rehearsal), statistics_(statistics), options_(options) {}

  void refit_layer(const LinearPair& pair) {
    Moments rows;
    Hooks hooks;
    at::Tensor input, output;
    hooks.set(*pair.compressed, [&](const at::Tensor& x, const at::Tensor&) {
      input = linear_input(*pair.compressed, x.reshape({-1, pair.compressed->options.in_features}));
    });
    hooks.set(*pair.original, [&](const at::Tensor&, const at::Tensor& y) { output = pair.target(y); });
    const double kl = observe(
        [&](const at::Tensor&, const at::Tensor&) {
          rows.add(at::cat({input, output}, 1));
        },
        [&] { rows = {}; });
    begin(pair.path, kl, snapshot_of(*pair.compressed));
    change(pair, Moments(rows.count(), rows.mean().cpu(), rows.scatter().cpu(), rows.skipped()));
  }

  void refresh_norm(const LinearPair& pair) {
    Moments rows;
    Hooks hooks;
    hooks.set(*pair.compressed, [&](const at::Tensor&, const at::Tensor& y) { rows.add(y); });
    const double kl = observe([](const at::Tensor&, const at::Tensor&) {}, [&] { rows = {}; });
    begin(pair.norm_path, kl, snapshot_of(*pair.norm));
    pair.norm->running_mean.copy_(rows.mean());
    pair.norm->running_var.copy_(rows.scatter().diagonal() / std::max(rows.count() - 1.0, 1.0));
  }

  void calibrate(nn::LinearImpl& last) {
    std::vector<at::Tensor> rest, part, target;
    Hooks hooks;
    at::Tensor output;
    hooks.set(last, [&](const at::Tensor&, const at::Tensor& y) { output = y.reshape({-1}).to(at::kDouble).cpu(); });
    const double kl = observe(
        [&](const at::Tensor& wanted, const at::Tensor& logits) {
          rest.push_back(logits.reshape({-1}).to(at::kDouble).cpu() - output);
          part.push_back(output);
          target.push_back(wanted.reshape({-1}).to(at::kDouble).cpu());
        },
        [&] { rest = part = target = {}; });
    begin("calibration", kl, snapshot_of(last));
    const LogitScale found = calibrate_logit(at::cat(rest), at::cat(part), at::cat(target));
    const at::Tensor weight = last.is_dense() ? last.weight : last.up,
                     bias = last.is_dense() ? last.bias : last.up_bias;
    at::Tensor(weight).mul_(found.scale);
    at::Tensor(bias).mul_(found.scale).add_(found.shift);
  }

  std::vector<RefitStep> finish() {
    settle(rehearsal_.run([](const at::Tensor&, const at::Tensor&) {}));
    return std::move(steps_);
  }

 private:
  // One pass over the rows as the model stands. It also shows whether the last change was good: if not, that is undone
  // and the pass made again.
  double observe(const Rehearsal::Observer& observer, const std::function<void()>& forget) {
    const double kl = rehearsal_.run(observer);
    if (settle(kl)) return kl;
    forget();
    return rehearsal_.run(observer);
  }

  void begin(const std::string& part, double kl, Snapshot before) {
    steps_.push_back({.part = part, .kl_before = kl});
    before_ = std::move(before);
  }

  bool settle(double kl) {
    if (!before_) return true;
    RefitStep& step = steps_.back();
    step.kl_after = kl;
    step.kept = kl <= step.kl_before;
    if (!step.kept) before_->restore();
    before_.reset();
    return step.kept;
  }

  void change(const LinearPair& pair, const Moments& rows) const {
    nn::LinearImpl& layer = *pair.compressed;
    const AffineMap start = map_of(layer);
    if (!(pair.first ? options_.first_layer : options_.later_layers)) {
      const at::Tensor moved = refresh_bias(rows, start).bias - start.bias;
      const at::Tensor bias = layer.is_dense() ? layer.bias : layer.up_bias;
      at::Tensor(bias).add_(moved.to(bias.options()));
    } else if (is_plain_pair(layer)) {
      set_pair(layer, rank_refit(rows, start, *layer.options.rank, options_.ridge, metric_of(pair)));
    } else {
      set_map(layer, ridge_refit(rows, start, options_.ridge));
    }
  }

  OutputMetric metric_of(const LinearPair& pair) const {
    const auto found = statistics_.layers.find(pair.path);
    if (found == statistics_.layers.end() || found->second.metric.empty()) return {};
    const at::Tensor& metric = found->second.metric[0];
    if (pair.outputs.defined())
      return output_metric(metric.index_select(0, pair.outputs).index_select(1, pair.outputs));
    return metric.size(0) == pair.compressed->options.out_features ? output_metric(metric) : OutputMetric();
  }

  const Rehearsal& rehearsal_;
  const Statistics& statistics_;
  const RefitOptions& options_;
  std::vector<RefitStep> steps_;
  std::optional<Snapshot> before_;
};

std::map<std::string, nn::LinearImpl*> linear_layers(Model& model) {
  std::map<std::string, nn::LinearImpl*> layers;
  for (const auto& [path, layer] : nn::layers_of(model)) {
    if (auto* linear = dynamic_cast<nn::LinearImpl*>(layer)) layers[path] = linear;
  }
  return layers;
}

bool has_bias(const nn::LinearImpl& layer) { return !layer.is_dense() || layer.bias.defined(); }

// "mlp.layers.0" -> "mlp.norms.0".
void find_norm(Model& model, LinearPair& pair) {
  const std::string key = "layers.";
  const auto at = pair.path.rfind(key);
  if (at == std::string::npos) return;
  const std::string path = pair.path.substr(0, at) + "norms." + pair.path.substr(at + key.size());
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    if (item.key() != path) continue;
    pair.norm = dynamic_cast<torch::nn::BatchNorm1dImpl*>(item.value().get());
    pair.norm_path = path;
  }
  if (pair.norm != nullptr && !pair.norm->running_mean.defined()) pair.norm = nullptr;
}

// Hidden layers with fewer units than the original's keep those that factorize() chose, which can be found again.
KeptUnits kept_units(const std::map<std::string, nn::LinearImpl*>& layers, Model& original,
                     const Statistics& statistics) {
  std::map<std::string, int64_t> counts;
  for (const HiddenLayer& hidden : hidden_layers(original)) {
    const auto layer = layers.find(hidden.path);
    const auto own = statistics.layers.find(hidden.path), next = statistics.layers.find(hidden.next);
    if (layer == layers.end() || own == statistics.layers.end() || next == statistics.layers.end()) continue;
    const int64_t units = layer->second->options.out_features;
    if (units < own->second.out_features && next->second.input.dim() > 0) counts[hidden.path] = units;
  }
  return choose_units(original, statistics, counts);
}

// In the order in which they run; those that run once, have a bias and give outputs that the original's gives.
std::vector<LinearPair> pairs_of(Model& compressed, Model& original, const Dataset& dataset,
                                 const Statistics& statistics) {
  const auto originals = linear_layers(original);
  std::vector<std::string> order;
  std::map<std::string, int> uses;
  Hooks hooks;
  for (const auto& [path, layer] : linear_layers(compressed)) {
    hooks.set(*layer, [&order, &uses, path = path](const at::Tensor&, const at::Tensor&) {
      if (++uses[path] == 1) order.push_back(path);
    });
  }
  logits_of(compressed, dataset, 1)();
  auto layers = linear_layers(compressed);
  const KeptUnits kept = kept_units(layers, original, statistics);
  std::vector<LinearPair> pairs;
  for (const std::string& path : order) {
    const auto found = originals.find(path);
    if (uses[path] != 1 || found == originals.end() || !has_bias(*layers[path])) continue;
    LinearPair pair{.path = path, .original = found->second, .compressed = layers[path]};
    if (const auto units = kept.find(path); units != kept.end()) {
      pair.outputs = at::tensor(units->second, at::kLong);
    } else if (found->second->options.out_features != layers[path]->options.out_features) {
      continue;
    }
    pair.first = path == order.front() || path.ends_with("layers.0");
    find_norm(compressed, pair);
    pairs.push_back(pair);
  }
  return pairs;
}

void check_options(const RefitOptions& options) {
  if (!(options.ridge >= 0.0 && std::isfinite(options.ridge))) {
    fail<std::invalid_argument>("RefitOptions.ridge must be at least 0, got {}", options.ridge);
  }
  if (options.max_rows < 0) {
    fail<std::invalid_argument>("RefitOptions.max_rows must be at least 0, got {}", options.max_rows);
  }
}

}  // namespace

std::vector<RefitStep> refit_(Model& compressed, Model& original, const Dataset& dataset, const Statistics& statistics,
                              const RefitOptions& options) {
  check_options(options);
  const at::NoGradGuard no_grad;
  const EvaluationMode compressed_mode(compressed), original_mode(original);
  const Rehearsal rehearsal(original, compressed, dataset, options.max_rows);
  Refitting refitting(rehearsal, statistics, options);
  const std::vector<LinearPair> pairs = pairs_of(compressed, original, dataset, statistics);
  for (const LinearPair& pair : pairs) {
    const bool refits = options.biases || (pair.first ? options.first_layer : options.later_layers);
    if (refits) refitting.refit_layer(pair);
    if (options.batch_norm && pair.norm != nullptr) refitting.refresh_norm(pair);
  }
  if (options.calibration && !pairs.empty() && pairs.back().compressed->options.out_features == 1) {
    refitting.calibrate(*pairs.back().compressed);
  }
  return refitting.finish();
}

}  // namespace afm
