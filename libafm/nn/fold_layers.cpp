#include "libafm/nn/fold_layers.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/types.h>

#include "libafm/nn/embedding_layout.h"
#include "libafm/nn/embedding_rows.h"
#include "libafm/nn/integer_weight.h"

namespace afm::nn {
namespace {

// What a layer computes with for its parameter `parameter`, float64.
at::Tensor values_of(const Layer& layer, const at::Tensor& parameter) {
  const torch::NoGradGuard no_grad;
  for (const IntegerParameter& own : layer.integer_parameters()) {
    if (own.tensor.is_same(parameter)) return own.integers->values(parameter, /*keep=*/false).to(at::kDouble);
  }
  return parameter.detach().to(at::kDouble);
}

void assign(const at::Tensor& target, const at::Tensor& value) {
  const torch::NoGradGuard no_grad;
  target.copy_(value);
}

int64_t parameters_of_pair(const LinearImpl& layer, int64_t width) {
  return *layer.options.rank * (width + layer.options.out_features + 1);
}

bool becomes_matrix(const LinearImpl& layer, int64_t width) {
  return !layer.is_dense() && layer.options.activation == FactorActivation::kNone &&
         parameters_of_pair(layer, width) >= width * layer.options.out_features;
}

}  // namespace

std::optional<Refusal> refusal_of(const EmbeddingImpl& embedding) {
  if (embedding.is_dense()) return Refusal{"embedding", "it is dense: it has no basis to fold"};
  return std::nullopt;
}

Decoder decoder_of(const EmbeddingImpl& embedding) {
  const EmbeddingLayout layout(embedding.options);
  const at::Tensor basis = embedding.basis.detach().to(at::kDouble);
  const at::Tensor offset = embedding.offset.detach().to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  std::vector<at::Tensor> rows;  // [F] of [k_j, D (+ 1)]
  for (std::size_t j = 0; j < layout.fields.size(); ++j) {
    const FieldLayout& field = layout.fields[j];
    rows.push_back(basis.narrow(0, field.basis_row, field.width));
    if (!field.multi) continue;
    const at::Tensor own = offset[static_cast<int64_t>(j)];
    rows.back() = at::cat({rows.back(), own.unsqueeze(0)});
    own.zero_();
  }
  Decoder decoder{.offset = offset.narrow(1, 0, layout.dim)};
  for (const at::Tensor& own : rows) decoder.basis.push_back(own.narrow(1, 0, layout.dim));
  if (layout.joint) {
    decoder.wide = at::cat(rows).select(1, layout.dim);
    decoder.wide_offset = offset.select(1, layout.dim).sum();
  }
  return decoder;
}

at::Tensor take_gauge(Decoder& decoder) {
  const auto rank_of = [](const at::Tensor& basis) { return basis.size(0); };
  const Gauge gauge = orthonormal_gauge(*std::ranges::max_element(decoder.basis, {}, rank_of));
  for (at::Tensor& basis : decoder.basis) basis = gauge.rows.narrow(0, 0, basis.size(0));
  return gauge.rotation;
}

void turn_latents(EmbeddingImpl& folded, const at::Tensor& rotation) {
  const torch::NoGradGuard no_grad;
  const EmbeddingLayout layout(folded.options);
  for (const FieldLayout& field : layout.fields) {
    for (const TierLayout& tier : field.tiers) {
      const at::Tensor latents = stored_rows(layout, folded.latent, tier).narrow(1, 0, tier.rank);
      const at::Tensor turn = rotation.narrow(0, 0, tier.rank).narrow(1, 0, tier.rank).t();
      latents.copy_(at::mm(latents.to(at::kDouble), turn));
    }
  }
}

FirstLayer first_layer_of(const MlpImpl& mlp, const std::string& path) {
  if (mlp.layers.empty()) return {mlp.head.ptr(), path + ".head"};
  return {mlp.layers.front().ptr(), path + ".layers.0"};
}

std::optional<Refusal> refusal_of(const FirstLayer& first, int64_t width) {
  const LinearOptions& options = first.layer->options;
  if (options.activation == FactorActivation::kNone || options.rank.value_or(0) <= width) return std::nullopt;
  return Refusal{first.path, fmt::format("its factors have the rank {} and a ReLU between them, but there are only {} "
                                         "latents and dense features to read",
                                         *options.rank, width)};
}

LayerPlan plan_on_latents(const LinearImpl& layer, int64_t width) {
  LayerPlan plan = layer.plan();
  if (becomes_matrix(layer, width)) plan.ranks.clear();
  return plan;
}

void read_latents(const LinearImpl& from, const Decoder& decoder, LinearImpl& to) {
  if (to.is_dense()) {
    const Affine whole = affine_of(from);
    const Affine folded = absorb(decoder, whole.weight, whole.bias);
    assign(to.weight, folded.weight);
    return assign(to.bias, folded.bias);
  }
  const Affine folded = absorb(decoder, values_of(from, from.down), from.down_bias.detach());
  assign(to.down, folded.weight);
  assign(to.down_bias, folded.bias);
  assign(to.up, from.up);
  assign(to.up_bias, from.up_bias);
}

Affine affine_of(const LinearImpl& layer) {
  if (layer.is_dense()) {
    const at::Tensor weight = values_of(layer, layer.weight);
    return {weight,
            layer.bias.defined() ? layer.bias.detach().to(at::kDouble) : at::zeros({weight.size(0)}, weight.options())};
  }
  const at::Tensor up = values_of(layer, layer.up), down_bias = layer.down_bias.detach().to(at::kDouble);
  return {at::mm(up, values_of(layer, layer.down)), at::mv(up, down_bias) + layer.up_bias.detach().to(at::kDouble)};
}

void append_affine(const LinearImpl& from, const NormAffine& affine, LinearImpl& to) {
  const at::Tensor& weight = from.is_dense() ? from.weight : from.up;
  const at::Tensor& bias = from.is_dense() ? from.bias : from.up_bias;
  assign(from.is_dense() ? to.weight : to.up, values_of(from, weight) * affine.scale.unsqueeze(1));
  assign(from.is_dense() ? to.bias : to.up_bias, bias.detach().to(at::kDouble) * affine.scale + affine.bias);
}

}  // namespace afm::nn
