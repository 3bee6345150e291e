#include "libafm/compress/reduce_units.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/ranges.h>

#include "libafm/core/fail.h"
#include "libafm/nn/linear.h"
#include "libafm/nn/mlp.h"

namespace afm {
namespace {

using Modules = std::map<std::string, std::shared_ptr<torch::nn::Module>>;

std::string joined(const std::string& path, const std::string& child) {
  return path.empty() ? child : path + "." + child;
}

Modules modules_below(torch::nn::Module& root) {
  Modules modules;
  for (const auto& item : root.named_modules("", /*include_self=*/false)) modules[item.key()] = item.value();
  return modules;
}

const nn::LinearImpl& linear_at(torch::nn::Module& root, const std::string& path) {
  return dynamic_cast<const nn::LinearImpl&>(*modules_below(root).at(path));
}

// Layer `i` of the Mlp at `path` with what reads it, if anything can take its place.
HiddenLayer hidden_layer(const nn::MlpImpl& mlp, const std::string& path, std::size_t i, const Modules& modules) {
  const std::string number = std::to_string(i);
  HiddenLayer layer{.path = joined(path, "layers." + number)};
  if (!mlp.norms.empty()) layer.norm = joined(path, "norms." + number);
  if (i + 1 < mlp.layers.size()) {
    layer.next = joined(path, "layers." + std::to_string(i + 1));
  } else if (mlp.head) {
    layer.next = joined(path, "head");
  } else if (const auto found = modules.find("head"); found != modules.end()) {
    const auto* head = dynamic_cast<const nn::LinearImpl*>(found->second.get());
    const int64_t width = mlp.layers[i]->options.out_features;
    if (head != nullptr && head->options.in_features >= width) {
      layer.next = "head";
      layer.first_column = head->options.in_features - width;
    }
  }
  return layer;
}

void offer_layers(const nn::MlpImpl& mlp, const std::string& path, const Modules& modules,
                  std::vector<HiddenLayer>& found) {
  for (std::size_t i = 0; i < mlp.layers.size(); ++i) {
    HiddenLayer layer = hidden_layer(mlp, path, i, modules);
    if (layer.next.empty()) continue;
    const auto& next = dynamic_cast<const nn::LinearImpl&>(*modules.at(layer.next));
    if (mlp.layers[i]->is_dense() && next.is_dense() && next.options.bias) found.push_back(std::move(layer));
  }
}

const LayerStatistics& statistics_at(const Statistics& statistics, const std::string& path) {
  const auto found = statistics.layers.find(path);
  if (found != statistics.layers.end()) return found->second;
  fail<std::invalid_argument>("layer '{}' must have statistics; no batch went through it", path);
}

Moments part_of(const Moments& moments, const at::Tensor& index) {
  return {moments.count(), moments.mean().index_select(0, index),
          moments.scatter().index_select(0, index).index_select(1, index), moments.skipped()};
}

at::Tensor block_of(const at::Tensor& matrix, const at::Tensor& index) {
  return matrix.index_select(0, index).index_select(1, index);
}

// The moments of h.
Moments hidden_moments(const Statistics& statistics, const HiddenLayer& layer) {
  const LayerStatistics& next = statistics_at(statistics, layer.next);
  if (next.input.dim() == 0) {
    fail<std::invalid_argument>("fewer units of layer '{}' need input moments (CollectOptions.input_moments)",
                                layer.path);
  }
  const int64_t width = statistics_at(statistics, layer.path).out_features;
  return part_of(next.input, at::arange(layer.first_column, layer.first_column + width, at::kLong));
}

at::Tensor hidden_weight(torch::nn::Module& root, const HiddenLayer& layer, int64_t width) {
  return linear_at(root, layer.next).weight.detach().narrow(1, layer.first_column, width);
}

std::vector<int64_t> all_units(int64_t width) {
  std::vector<int64_t> units(static_cast<std::size_t>(width));
  std::iota(units.begin(), units.end(), int64_t{0});
  return units;
}

// `outputs`: those of the next layer that will be left.
HiddenUnits order_of(torch::nn::Module& root, const Statistics& statistics, const HiddenLayer& layer,
                     const at::Tensor& outputs, int64_t most) {
  const Moments hidden = hidden_moments(statistics, layer);
  const std::vector<at::Tensor>& metric = statistics_at(statistics, layer.next).metric;
  const at::Tensor weight = hidden_weight(root, layer, hidden.dim()).cpu().index_select(0, outputs);
  return select_units(hidden, weight, metric.empty() ? OutputMetric() : output_metric(block_of(metric[0], outputs)),
                      most);
}

at::Tensor outputs_left(const Statistics& statistics, const std::string& path, const KeptUnits& kept) {
  const auto found = kept.find(path);
  return at::tensor(found == kept.end() ? all_units(statistics_at(statistics, path).out_features) : found->second,
                    at::kLong);
}

// The layer for which a count was given.
void check_counts(const std::vector<HiddenLayer>& layers, const Statistics& statistics,
                  const std::map<std::string, int64_t>& counts) {
  for (const auto& [path, count] : counts) {
    if (std::ranges::find(layers, path, &HiddenLayer::path) == layers.end()) {
      std::vector<std::string> known;
      for (const HiddenLayer& layer : layers) known.push_back(layer.path);
      fail<std::invalid_argument>("layer '{}' must be a hidden layer to keep fewer units; the hidden layers are: {}",
                                  path, fmt::join(known, ", "));
    }
    const int64_t width = statistics_at(statistics, path).out_features;
    if (count >= 1 && count <= width) continue;
    fail<std::invalid_argument>("the units of layer '{}' must be in [1, {}], got {}", path, width, count);
  }
}

// How much more the logit, or the next layer's output, moves with each kept h than it did.
at::Tensor growth_of(const LayerStatistics& next, const at::Tensor& before, const at::Tensor& after) {
  const auto weight_of = [&](const at::Tensor& columns) {
    return next.metric.empty() ? columns.square().sum(0) : (at::mm(next.metric[0], columns) * columns).sum(0);
  };
  const at::Tensor old_weight = weight_of(before), new_weight = weight_of(after).clamp_min(0.0);
  const at::Tensor growth = (new_weight / old_weight).sqrt();
  return at::where(growth.isfinite(), growth, 1.0);  // weights of zero, or so small that their squares underflow
}

void keep_outputs(LayerStatistics& layer, const at::Tensor& index, const at::Tensor& growth) {
  layer.out_features = index.size(0);
  layer.output = {part_of(layer.output[0], index)};
  if (!layer.metric.empty()) layer.metric = {block_of(layer.metric[0], index) * at::outer(growth, growth)};
}

// ||y' - mean|| where only h moves: ReLU moves h no farther than norm moves the layer's output.
double radius_behind(torch::nn::Module& root, const HiddenLayer& layer, const LayerStatistics& own,
                     const at::Tensor& index, const at::Tensor& weight, const at::Tensor& hidden_mean) {
  at::Tensor centre = own.output[0].mean(), gain = at::ones_like(centre);
  if (!layer.norm.empty()) {
    const auto& norm = dynamic_cast<const torch::nn::BatchNorm1dImpl&>(*modules_below(root).at(layer.norm));
    const auto number = [](const at::Tensor& tensor) { return tensor.detach().to(at::kCPU, at::kDouble); };
    gain = number(norm.weight) / (number(norm.running_var) + norm.options.eps()).sqrt();
    centre = gain * (centre - number(norm.running_mean)) + number(norm.bias);
  }
  const at::Tensor moving = weight * gain.index_select(0, index);
  const at::Tensor offset = at::mv(weight, centre.relu().index_select(0, index) - hidden_mean);
  return own.radius * at::linalg_matrix_norm(moving, 2).item<double>() + offset.norm().item<double>();
}

// Parameters and buffers that are gone; a batch norm has two of each per unit.
void shrink_totals(Statistics& reduced, const Statistics& statistics, int64_t normed_units) {
  const double size = statistics.parameters == 0 ? 0.0
                                                 : static_cast<double>(statistics.parameter_bytes) /
                                                       static_cast<double>(statistics.parameters);
  int64_t gone = 2 * normed_units;
  for (const auto& [path, layer] : statistics.layers) gone += layer.parameters() - reduced.layers.at(path).parameters();
  const auto bytes = static_cast<int64_t>(size * static_cast<double>(gone));
  reduced.parameters -= gone;
  reduced.parameter_bytes -= bytes;
  reduced.bytes -= bytes + static_cast<int64_t>(size * static_cast<double>(2 * normed_units));
}

}  // namespace

std::vector<HiddenLayer> hidden_layers(torch::nn::Module& root) {
  const Modules modules = modules_below(root);
  std::vector<HiddenLayer> found;
  if (const auto* mlp = dynamic_cast<const nn::MlpImpl*>(&root)) offer_layers(*mlp, "", modules, found);
  for (const auto& [path, module] : modules) {
    if (const auto* mlp = dynamic_cast<const nn::MlpImpl*>(module.get())) offer_layers(*mlp, path, modules, found);
  }
  return found;
}

KeptUnits choose_units(torch::nn::Module& root, const Statistics& statistics,
                       const std::map<std::string, int64_t>& counts) {
  const std::vector<HiddenLayer> layers = hidden_layers(root);
  check_counts(layers, statistics, counts);
  KeptUnits kept;
  // The last first: a layer need not serve units that are dropped behind it.
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
    const auto count = counts.find(layer->path);
    if (count == counts.end()) continue;
    HiddenUnits units = order_of(root, statistics, *layer, outputs_left(statistics, layer->next, kept), count->second);
    std::ranges::sort(units.order);
    kept[layer->path] = std::move(units.order);
  }
  return kept;
}

std::map<std::string, HiddenUnits> unit_orders(torch::nn::Module& root, const Statistics& statistics) {
  std::map<std::string, HiddenUnits> orders;
  for (const HiddenLayer& layer : hidden_layers(root)) {
    if (!statistics.layers.contains(layer.path) || !statistics.layers.contains(layer.next)) continue;
    orders[layer.path] = order_of(root, statistics, layer, outputs_left(statistics, layer.next, {}), kAllUnits);
  }
  return orders;
}

NextLayer layer_behind(torch::nn::Module& root, const Statistics& statistics, const HiddenLayer& layer,
                       const std::vector<int64_t>& kept) {
  const nn::LinearImpl& next = linear_at(root, layer.next);
  const Moments hidden = hidden_moments(statistics, layer);
  NextLayer refitted = refit_next_layer(hidden, hidden_weight(root, layer, hidden.dim()), next.bias, kept);
  if (layer.first_column == 0) return refitted;
  refitted.weight = at::cat({next.weight.detach().narrow(1, 0, layer.first_column), refitted.weight}, 1);
  return refitted;
}

Statistics reduced_statistics(const Statistics& statistics, torch::nn::Module& root, const KeptUnits& kept) {
  const at::NoGradGuard no_grad;
  Statistics reduced = statistics;
  int64_t normed_units = 0;
  for (const HiddenLayer& layer : hidden_layers(root)) {
    const auto found = kept.find(layer.path);
    if (found == kept.end()) continue;
    const at::Tensor index = at::tensor(found->second, at::kLong);
    const LayerStatistics &own = statistics_at(statistics, layer.path), &old = statistics_at(statistics, layer.next);
    const at::Tensor weight = layer_behind(root, statistics, layer, found->second).weight.to(at::kCPU, at::kDouble);
    const at::Tensor columns = weight.narrow(1, layer.first_column, index.size(0));
    const at::Tensor before = hidden_weight(root, layer, own.out_features).to(at::kCPU, at::kDouble);

    LayerStatistics& next = reduced.layers.at(layer.next);
    const at::Tensor inputs = at::cat({at::arange(layer.first_column, at::kLong), index + layer.first_column});
    next.input = part_of(old.input, inputs);
    next.in_features = inputs.size(0);
    next.input_mean = next.input.mean();
    const Moments& output = old.output[0];
    next.output = {Moments(output.count(), output.mean(),
                           at::mm(at::mm(weight, next.input.covariance() * output.count()), weight.t()),
                           output.skipped())};
    if (layer.first_column == 0) next.radius = radius_behind(root, layer, own, index, weight, next.input_mean);
    keep_outputs(reduced.layers.at(layer.path), index, growth_of(old, before.index_select(1, index), columns));
    if (!layer.norm.empty()) normed_units += own.out_features - index.size(0);
  }
  shrink_totals(reduced, statistics, normed_units);
  return reduced;
}

}  // namespace afm
