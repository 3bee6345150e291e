#include "libafm/compress/factorize.h"

#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "libafm/compress/layer_ranks.h"
#include "libafm/core/fail.h"
#include "libafm/linalg/factors.h"
#include "libafm/nn/embedding.h"
#include "libafm/nn/linear.h"

namespace afm {
namespace {

using Layers = std::map<std::string, nn::Layer*>;
using Install = std::function<void()>;

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

bool is_finite(const at::Tensor& values) { return !values.defined() || values.isfinite().all().item<bool>(); }

bool has_finite_weights(const nn::Layer& layer) {
  if (const auto* linear = dynamic_cast<const nn::LinearImpl*>(&layer)) {
    return is_finite(linear->weight) && is_finite(linear->bias);
  }
  return is_finite(dynamic_cast<const nn::EmbeddingImpl&>(layer).weight);
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
  if (!has_finite_weights(layer)) {
    fail<std::invalid_argument>("the weights of layer '{}' must be finite, got a NaN or an infinity", path);
  }
}

// Note [Lossless shift]: a latent value is z_i = u_i'(y - b) / ||up_i|| + constant for the unit vector u_i along column
// i of `up`, both for mimicking (||up_i|| = 1) and for the SVD, so it stays within radius / ||up_i|| of its mean, and
// ReLU cuts nothing once that mean is moved to radius / ||up_i|| (science.md 1.4).
void shift_biases(Factors& factors, const LayerStatistics& statistics) {
  const at::Tensor up = factors.up.to(at::kDouble);
  const at::Tensor input_mean = statistics.input_mean.to(up.device());
  const at::Tensor mean = at::mv(factors.down.to(at::kDouble), input_mean) + factors.down_bias.to(at::kDouble);
  const at::Tensor scale = up.norm(2, {0});
  const at::Tensor distance = at::where(scale > 0.0, statistics.radius / scale, at::zeros_like(scale));
  const at::Tensor shift = (distance - mean).clamp_min_(0.0);
  factors.down_bias.add_(shift);
  factors.up_bias.sub_(at::mv(up, shift));
}

Install linear_install(nn::LinearImpl& layer, const LayerStatistics& statistics, const LayerPlan& plan,
                       FactorMethod method) {
  const int64_t rank = plan.ranks[0];
  const Moments& output = statistics.output[0];
  Factors factors = method == FactorMethod::kMimic
                        ? mimic_output(layer.weight, layer.bias, output.mean(), spectrum_of(output.covariance()), rank)
                        : truncate_weight(layer.weight, layer.bias, statistics.input_mean, rank);
  if (plan.activation == FactorActivation::kShiftedRelu) shift_biases(factors, statistics);
  return
      [&layer, factors = std::move(factors), activation = plan.activation] { layer.set_factors(factors, activation); };
}

// The second moment of the rows of a table, all equal: its eigenvectors are the right singular vectors of the table.
at::Tensor second_moment(const at::Tensor& table) {
  Moments moments;
  moments.add(table);
  return (moments.scatter() + at::outer(moments.mean(), moments.mean()) * moments.count()).cpu();
}

std::vector<Spectrum> table_spectra(const nn::EmbeddingImpl& layer, Basis basis) {
  std::vector<at::Tensor> moments;
  for (int64_t j = 0; j < layer.field_count(); ++j) moments.push_back(second_moment(layer.table(j)));
  if (basis == Basis::kShared) return std::vector<Spectrum>(moments.size(), spectrum_of(at::stack(moments).sum(0)));
  std::vector<Spectrum> spectra;
  for (const at::Tensor& moment : moments) spectra.push_back(spectrum_of(moment));
  return spectra;
}

std::vector<TableFactors> svd_tables(const nn::EmbeddingImpl& layer, const LayerPlan& plan) {
  const std::vector<Spectrum> spectra = table_spectra(layer, plan.basis);
  const at::Tensor no_mean = at::zeros({layer.options.embedding_dim}, at::kDouble);
  std::vector<TableFactors> fields;
  for (std::size_t j = 0; j < plan.ranks.size(); ++j) {
    fields.push_back(mimic_table(layer.table(static_cast<int64_t>(j)), no_mean, spectra[j], plan.ranks[j]));
  }
  return fields;
}

// The latent of the mean, so that basis and offset give the mean itself.
void give_unseen_the_mean(TableFactors& field, const at::Tensor& counts, const at::Tensor& mean) {
  const at::Tensor unseen = counts.eq(0.0).nonzero().squeeze(1).to(field.latent.device());
  const at::Tensor basis = field.basis.to(at::kDouble);
  const at::Tensor latent = at::mv(basis, mean.to(basis.device())).to(field.latent.scalar_type());
  field.latent.index_copy_(0, unseen, latent.expand({unseen.size(0), latent.size(0)}));
}

std::vector<TableFactors> mimicked_tables(const nn::EmbeddingImpl& layer, const LayerStatistics& statistics,
                                          const LayerPlan& plan, bool whole_training_set) {
  const std::vector<Directions> directions = output_directions(statistics, {.basis = plan.basis});
  std::vector<TableFactors> fields;
  for (std::size_t j = 0; j < plan.ranks.size(); ++j) {
    const at::Tensor& mean = statistics.output[j].mean();
    fields.push_back(mimic_table(layer.table(static_cast<int64_t>(j)), mean, directions[j].spectrum, plan.ranks[j]));
    if (whole_training_set) give_unseen_the_mean(fields.back(), statistics.id_counts[j], mean);
  }
  return fields;
}

Install install_for(nn::Layer& layer, const Statistics& statistics, const std::string& path, const LayerPlan& plan,
                    FactorMethod method) {
  const LayerStatistics& own = statistics.layers.at(path);
  if (auto* linear = dynamic_cast<nn::LinearImpl*>(&layer)) return linear_install(*linear, own, plan, method);
  auto& embedding = dynamic_cast<nn::EmbeddingImpl&>(layer);
  std::vector<TableFactors> fields = method == FactorMethod::kMimic
                                         ? mimicked_tables(embedding, own, plan, statistics.whole_training_set)
                                         : svd_tables(embedding, plan);
  return [&embedding, fields = std::move(fields), plan] { embedding.set_factors(fields, plan); };
}

}  // namespace

void factorize_(torch::nn::Module& module, const Statistics& statistics, const RankPlan& plan, FactorMethod method) {
  const at::NoGradGuard no_grad;
  const auto found = nn::layers_of(module);
  const Layers layers(found.begin(), found.end());
  for (const auto& [path, layer_plan] : plan) check_layer(layers, statistics, path, layer_plan);
  std::vector<Install> installs;
  for (const auto& [path, layer_plan] : plan) {
    installs.push_back(install_for(*layers.at(path), statistics, path, layer_plan, method));
  }
  for (const Install& install : installs) install();
}

std::shared_ptr<Model> factorize(const Model& model, const Statistics& statistics, const RankPlan& plan,
                                 FactorMethod method) {
  std::shared_ptr<Model> copy = copy_of(model);
  factorize_(*copy, statistics, plan, method);
  return copy;
}

}  // namespace afm
