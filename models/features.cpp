#include "models/features.h"

#include <numeric>
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

const at::Tensor& read_of(const nn::EmbeddingOutput& output) {
  return output.values.defined() ? output.values : output.latents;
}

int64_t feature_width(const Schema& schema, const nn::EmbeddingImpl& embedding) {
  const auto& ranks = embedding.options.ranks;
  const int64_t read = is_folded(embedding) ? std::accumulate(ranks.begin(), ranks.end(), int64_t{0})
                                            : embedding.field_count() * embedding.options.embedding_dim;
  return read + schema.dense_count();
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

at::Tensor concatenate(const at::Tensor& values, const at::Tensor& dense) {
  const at::Tensor flat = values.flatten(1);
  return dense.defined() ? at::cat({flat, dense}, 1) : flat;
}

at::Tensor first_order(const nn::EmbeddingOutput& output, const at::Tensor& wide_latent, nn::Linear& wide_dense,
                       const at::Tensor& dense, const at::Tensor& bias) {
  at::Tensor logit = bias;
  if (output.wide.defined()) logit = logit + output.wide;
  if (wide_latent.defined()) logit = logit + at::mv(output.latents, wide_latent);
  return dense.defined() ? logit + wide_dense->forward(dense).squeeze(1) : logit;
}

}  // namespace afm::models
