#include "models/features.h"

#include <numeric>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "libafm/core/error.h"
#include "libafm/nn/layer.h"

namespace afm::models {

nlohmann::json parsed_options(std::string_view text, std::string_view where) {
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    fail<std::invalid_argument>("{} must be JSON: {}", where, error.what());
  }
}

void check_schema(const Schema& schema, std::string_view model) {
  check_counted(schema);
  if (schema.cardinalities().empty()) {
    fail<DataError>("{} needs a schema with a categorical or multi-valued field, got numeric fields alone", model);
  }
}

namespace {

// A multi-valued field may be empty even where one slot is all it has.
std::vector<bool> multi_valued(const Schema& schema) {
  std::vector<bool> multi;
  for (const FieldSpec& field : schema.fields) {
    if (field.has_ids()) multi.push_back(field.kind == FieldKind::kMulti);
  }
  return multi;
}

}  // namespace

nn::EmbeddingOptions embedding_options(const Schema& schema, int64_t embedding_dim, double init_std, bool wide,
                                       const RankPlan& plan) {
  // Built in its final form: a dense table first would need the memory that the plan is there to save.
  const auto found = plan.find("embedding");
  const LayerPlan form = found == plan.end() ? LayerPlan{} : found->second;
  return {.cardinalities = schema.cardinalities(),
          .embedding_dim = embedding_dim,
          .slots = schema.slots(),
          .multi_valued = multi_valued(schema),
          .names = schema.id_field_names(),
          .wide = wide,
          .init_std = init_std,
          .ranks = form.ranks,
          .basis = form.basis,
          .joint = form.joint,
          .tiers = form.tiers,
          .bits = form.bits,
          .scale = form.scale};
}

void apply_fresh_plan(torch::nn::Module& model, const RankPlan& plan) {
  std::vector<nn::Layer*> changed;
  for (const auto& [path, layer] : nn::layers_of(model)) {
    const auto found = plan.find(path);
    if (found != plan.end() && found->second != layer->plan()) changed.push_back(layer);
  }
  nn::apply_plan(model, plan);
  for (nn::Layer* layer : changed) layer->reset_parameters();
}

bool is_folded(const nn::EmbeddingImpl& embedding) { return embedding.options.basis == Basis::kNone; }

std::vector<int64_t> latent_ranks(const nn::EmbeddingImpl& embedding) {
  std::vector<int64_t> ranks = embedding.options.ranks;
  for (std::size_t j = 0; j < ranks.size(); ++j) ranks[j] += embedding.options.multi_valued[j];
  return ranks;
}

at::Tensor read_of(const nn::EmbeddingImpl& embedding, const nn::EmbeddingOutput& output, const at::Tensor& ids) {
  if (output.values.defined()) return output.values;
  const nn::EmbeddingOptions& options = embedding.options;
  std::vector<at::Tensor> parts;
  int64_t read = 0, width = 0, slot = 0;  // fields without presence are taken together
  for (std::size_t j = 0; j < options.ranks.size(); ++j) {
    width += options.ranks[j];
    if (options.multi_valued[j]) {
      parts.push_back(output.latents.narrow(1, read, width));
      parts.push_back(ids.narrow(1, slot, options.slots[j]).ge(0).any(1, /*keepdim=*/true).to(parts[0].scalar_type()));
      read += std::exchange(width, 0);
    }
    slot += options.slots[j];
  }
  if (parts.empty()) return output.latents;
  parts.push_back(output.latents.narrow(1, read, width));
  return at::cat(parts, 1);
}

int64_t feature_width(const Schema& schema, const nn::EmbeddingImpl& embedding) {
  if (!is_folded(embedding)) return embedding.field_count() * embedding.options.embedding_dim + schema.dense_count();
  const std::vector<int64_t> ranks = latent_ranks(embedding);
  return std::accumulate(ranks.begin(), ranks.end(), schema.dense_count());
}

at::Tensor dense_features(const Batch& batch, int64_t count, const at::Tensor& values) {
  const int64_t rows = values.size(0);
  const at::Tensor& dense = batch.dense;
  const bool fits = dense.defined() ? dense.dim() == 2 && dense.size(0) == rows && dense.size(1) == count : count == 0;
  if (!fits) {
    fail<DataError>("the dense features of a batch must have the shape [{}, {}], got {}", rows, count,
                    dense.defined() ? fmt::format("[{}]", fmt::join(dense.sizes(), ", ")) : "none");
  }
  return count == 0 ? at::Tensor() : dense.to(values.scalar_type());
}

std::optional<nn::EmbeddingFeatures> fused_features(nn::EmbeddingImpl& embedding, const Batch& batch, int64_t count,
                                                    bool interaction) {
  if (!batch.ids.is_cuda() || is_folded(embedding)) return std::nullopt;
  return embedding.features(
      batch.ids, dense_features(batch, count, at::empty({batch.rows()}, batch.ids.options().dtype(at::kFloat))),
      interaction);
}

at::Tensor fused_logit(const nn::EmbeddingFeatures& features, nn::Linear& wide_dense, const Batch& batch,
                       const at::Tensor& bias, nn::MlpImpl& mlp) {
  const at::Tensor& score = features.score;
  return mlp.forward_beside(features.input, wide_dense ? score + wide_dense->forward(batch.dense).squeeze(1) : score,
                            bias);
}

at::Tensor concatenate(const at::Tensor& values, const at::Tensor& dense) {
  const at::Tensor flat = values.flatten(1);
  return dense.defined() ? at::cat({flat, dense}, 1) : flat;
}

at::Tensor first_order(const at::Tensor& wide, nn::Linear& wide_dense, const at::Tensor& dense,
                       const at::Tensor& bias) {
  const at::Tensor logit = wide.defined() ? wide + bias : bias;
  return dense.defined() ? logit + wide_dense->forward(dense).squeeze(1) : logit;
}

}  // namespace afm::models
