#include "libafm/compress/factorize.h"

#include <functional>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "libafm/compress/directions.h"
#include "libafm/compress/factorize_tables.h"
#include "libafm/compress/layer_ranks.h"
#include "libafm/compress/reduce_units.h"
#include "libafm/core/fail.h"
#include "libafm/linalg/factors.h"
#include "libafm/linalg/tensor_rules.h"
#include "libafm/nn/embedding.h"
#include "libafm/nn/linear.h"
#include "libafm/nn/matching_state.h"

namespace afm {
namespace {

using Layers = std::map<std::string, nn::Layer*>;
using Install = std::function<void(nn::Layer&)>;  // on the layer, or on one that takes its place

nn::Layer& layer_named(const Layers& layers, const std::string& path) {
  const auto found = layers.find(path);
  if (found != layers.end()) return *found->second;
  std::vector<std::string_view> known;
  for (const auto& [name, layer] : layers) known.push_back(name);
  fail<std::invalid_argument>("the rank plan names '{}', which is no layer of the model; its layers are: {}", path,
                              fmt::join(known, ", "));
}

bool has_shape_of(const nn::Layer& layer, const LayerStatistics& statistics) {
  if (const auto* linear = dynamic_cast<const nn::LinearImpl*>(&layer)) {
    return !statistics.is_embedding && linear->options.in_features == statistics.in_features &&
           linear->options.out_features == statistics.out_features;
  }
  const auto* embedding = dynamic_cast<const nn::EmbeddingImpl*>(&layer);
  return embedding && statistics.is_embedding && embedding->options.cardinalities == statistics.cardinalities &&
         embedding->options.embedding_dim == statistics.embedding_dim;
}

bool is_finite(const at::Tensor& values) { return !values.defined() || all_finite(values); }

bool has_finite_weights(const nn::Layer& layer) {
  if (const auto* linear = dynamic_cast<const nn::LinearImpl*>(&layer)) {
    return is_finite(linear->weight) && is_finite(linear->bias);
  }
  return is_finite(dynamic_cast<const nn::EmbeddingImpl&>(layer).weight);
}

void check_form(const std::string& path, const LayerPlan& plan) {
  if (plan.units != 0) {
    fail<std::invalid_argument>(
        "the rank plan of layer '{}' must keep all units in place: factorize() makes a new model", path);
  }
  if (plan.basis != Basis::kNone) return;
  fail<std::invalid_argument>("the basis of layer '{}' must be field or shared before it is folded, got none", path);
}

void check_layer(const Layers& layers, const Statistics& statistics, const std::string& path, const LayerPlan& plan) {
  const nn::Layer& layer = layer_named(layers, path);
  if (!layer.is_dense()) fail<std::invalid_argument>("layer '{}' must be dense, it is factorized already", path);
  const auto found = statistics.layers.find(path);
  if (found == statistics.layers.end()) {
    fail<std::invalid_argument>("layer '{}' must have statistics; no batch went through it", path);
  }
  if (!has_shape_of(layer, found->second)) {
    fail<std::invalid_argument>("layer '{}' must have the shape that its statistics were collected on", path);
  }
  check_ranks(path, found->second, plan);
  check_form(path, plan);
  if (!has_finite_weights(layer)) {
    fail<std::invalid_argument>("the weights of layer '{}' must be finite, got a NaN or an infinity", path);
  }
}

struct Method {
  FactorMethod method;
  double metric_eps;
};

// Note [Lossless shift]: a latent value is z_i = reader_i (y - b) + constant: the reader of mimic_output(), and u_i' /
// ||up_i|| for the SVD with u_i the unit vector along column i of `up`. So it stays within ||reader_i|| radius of its
// mean, and ReLU cuts nothing once that mean is moved so far above zero.
void shift_biases(Factors& factors, const LayerStatistics& statistics, const at::Tensor& reach) {
  const at::Tensor up = factors.up.to(at::kDouble);
  const at::Tensor input_mean = statistics.input_mean.to(up.device());
  const at::Tensor mean = at::mv(factors.down.to(at::kDouble), input_mean) + factors.down_bias.to(at::kDouble);
  const at::Tensor shift = (statistics.radius * reach.to(up.device()) - mean).clamp_min_(0.0);
  factors.down_bias.add_(shift);
  factors.up_bias.sub_(at::mv(up, shift));
}

struct LinearFactors {
  Factors factors;
  at::Tensor reach;  // [k] ||reader_i||
};

LinearFactors mimicked_layer(const nn::LinearImpl& layer, const LayerStatistics& statistics, int64_t rank,
                             double metric_eps) {
  const Directions directions =
      output_directions(statistics, {.metric = !statistics.metric.empty(), .metric_eps = metric_eps}).front();
  const at::Tensor& mean = statistics.output[0].mean();
  return {mimic_output(layer.weight, layer.bias, mean, directions.spectrum, rank, directions.metric),
          mimic_reader(directions.spectrum, rank, directions.metric).norm(2, {1})};
}

LinearFactors truncated_layer(const nn::LinearImpl& layer, const LayerStatistics& statistics, int64_t rank) {
  Factors factors = truncate_weight(layer.weight, layer.bias, statistics.input_mean, rank);
  const at::Tensor scale = factors.up.to(at::kDouble).norm(2, {0});
  return {std::move(factors), at::where(scale > 0.0, scale.reciprocal(), 0.0)};
}

Install linear_install(const nn::LinearImpl& layer, const LayerStatistics& statistics, const LayerPlan& plan,
                       const Method& how) {
  auto [factors, reach] = how.method == FactorMethod::kMimic
                              ? mimicked_layer(layer, statistics, plan.ranks[0], how.metric_eps)
                              : truncated_layer(layer, statistics, plan.ranks[0]);
  if (plan.activation == FactorActivation::kShiftedRelu) shift_biases(factors, statistics, reach);
  return [factors = std::move(factors), plan](nn::Layer& target) {
    auto& linear = dynamic_cast<nn::LinearImpl&>(target);
    linear.options.bits = plan.bits;
    linear.options.scale = plan.scale;
    linear.set_factors(factors, plan.activation);
  };
}

// A layer that stays dense: only how its weights are stored changes.
template <typename LayerImpl>
Install dense_install(const LayerImpl& layer, const LayerPlan& plan) {
  return [plan, weight = layer.weight.detach()](nn::Layer& target) {
    target.reshape(plan);
    dynamic_cast<LayerImpl&>(target).weight.copy_(weight);
  };
}

Install dense_linear_install(const nn::LinearImpl& layer, const LayerPlan& plan) {
  const at::Tensor bias = layer.bias.defined() ? layer.bias.detach() : at::Tensor();
  return [bias, weights = dense_install(layer, plan)](nn::Layer& target) {
    weights(target);
    if (bias.defined()) dynamic_cast<nn::LinearImpl&>(target).bias.copy_(bias);
  };
}

Install embedding_install(const nn::EmbeddingImpl& layer, const Statistics& statistics, const LayerStatistics& own,
                          const LayerPlan& plan, const Method& how) {
  EmbeddingFactors factors =
      how.method == FactorMethod::kMimic
          ? mimicked_tables(layer, own, plan, !own.metric.empty(), how.metric_eps, statistics.whole_training_set)
          : svd_tables(layer, plan);
  // The layer that gets them may not be the one that has them.
  if (layer.options.wide && !plan.joint && !factors.wide.defined()) factors.wide = layer.wide_weights();
  return [factors = std::move(factors), plan](nn::Layer& target) {
    dynamic_cast<nn::EmbeddingImpl&>(target).set_factors(factors.fields, plan, factors.wide);
  };
}

Install install_for(const nn::Layer& layer, const Statistics& statistics, const std::string& path,
                    const LayerPlan& plan, const Method& how) {
  const LayerStatistics& own = statistics.layers.at(path);
  if (const auto* linear = dynamic_cast<const nn::LinearImpl*>(&layer)) {
    return plan.ranks.empty() ? dense_linear_install(*linear, plan) : linear_install(*linear, own, plan, how);
  }
  const auto& embedding = dynamic_cast<const nn::EmbeddingImpl&>(layer);
  return plan.ranks.empty() ? dense_install(embedding, plan) : embedding_install(embedding, statistics, own, plan, how);
}

Layers layers_by_path(torch::nn::Module& module) {
  const auto found = nn::layers_of(module);
  return {found.begin(), found.end()};
}

// Every check and all arithmetic; changes nothing.
std::map<std::string, Install> installs_for(const Layers& layers, const Statistics& statistics, const RankPlan& plan,
                                            const Method& how) {
  for (const auto& [path, layer_plan] : plan) check_layer(layers, statistics, path, layer_plan);
  std::map<std::string, Install> installs;
  for (const auto& [path, layer_plan] : plan) {
    installs[path] = install_for(*layers.at(path), statistics, path, layer_plan, how);
  }
  return installs;
}

// Built in the form of the plan: a table that becomes factors is never copied.
std::shared_ptr<Model> factorized_copy(const Model& model, const Statistics& statistics, const RankPlan& plan,
                                       const Method& how) {
  const at::NoGradGuard no_grad;
  const auto installs = installs_for(layers_by_path(const_cast<Model&>(model)), statistics, plan, how);
  RankPlan form = nn::rank_plan_of(model);
  for (const auto& [path, layer_plan] : plan) form[path] = layer_plan;
  const nn::BlankScope blank(model.device(), model.dtype());
  std::shared_ptr<Model> copy = model.build_like(form);
  copy_matching(*copy, model);
  const Layers targets = layers_by_path(*copy);
  for (const auto& [path, install] : installs) install(*targets.at(path));
  return copy;
}

// Takes the instructions on units out of a plan.
std::map<std::string, int64_t> take_units(RankPlan& plan) {
  std::map<std::string, int64_t> counts;
  for (auto entry = plan.begin(); entry != plan.end();) {
    if (const int64_t units = std::exchange(entry->second.units, 0); units != 0) counts[entry->first] = units;
    entry = entry->second == LayerPlan{} ? plan.erase(entry) : std::next(entry);
  }
  return counts;
}

}  // namespace

void factorize_(torch::nn::Module& module, const Statistics& statistics, const RankPlan& plan, FactorMethod method,
                double metric_eps) {
  const at::NoGradGuard no_grad;
  const Layers layers = layers_by_path(module);
  for (const auto& [path, install] : installs_for(layers, statistics, plan, {method, metric_eps})) {
    install(*layers.at(path));
  }
}

std::shared_ptr<Model> factorize(const Model& model, const Statistics& statistics, const RankPlan& plan,
                                 FactorMethod method, double metric_eps) {
  RankPlan ranks = plan;
  const std::map<std::string, int64_t> counts = take_units(ranks);
  if (counts.empty()) return factorized_copy(model, statistics, plan, {method, metric_eps});
  auto& original = const_cast<Model&>(model);  // only read
  const KeptUnits kept = choose_units(original, statistics, counts);
  std::shared_ptr<Model> reduced = reduced_model(model, statistics, kept);
  factorize_(*reduced, reduced_statistics(statistics, original, kept), ranks, method, metric_eps);
  return reduced;
}

}  // namespace afm
