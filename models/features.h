#pragma once

// Private: what the models share: option rules, the embedding of a schema, and one row of features.

#include <cmath>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include "libafm/core/fail.h"
#include "libafm/core/options_json.h"
#include "libafm/data/batch.h"
#include "libafm/data/schema.h"
#include "libafm/nn/embedding.h"
#include "libafm/nn/linear.h"
#include "libafm/nn/mlp.h"
#include "libafm/nn/rank_plan.h"

namespace afm::models {

// The rules on the options that every model has. `where` names the struct.
template <typename Options>
void check_options(const Options& options, std::string_view where) {
  if (options.embedding_dim < 1) {
    fail<std::invalid_argument>("{}.embedding_dim must be at least 1, got {}", where, options.embedding_dim);
  }
  for (const int64_t width : options.hidden) {
    if (width < 1) fail<std::invalid_argument>("{}.hidden must have widths of at least 1, got {}", where, width);
  }
  if (!(options.dropout >= 0.0 && options.dropout < 1.0)) {
    fail<std::invalid_argument>("{}.dropout must be in [0, 1), got {}", where, options.dropout);
  }
  if (!(options.init_std >= 0.0 && std::isfinite(options.init_std))) {
    fail<std::invalid_argument>("{}.init_std must be at least 0, got {}", where, options.init_std);
  }
}

// Throws std::invalid_argument for text that is not JSON.
nlohmann::json parsed_options(std::string_view text, std::string_view where);

// Options from JSON; what is left out has its default. Throws std::invalid_argument, naming the struct `where`.
template <typename Options>
Options options_from(std::string_view text, std::string_view where) {
  return from_json<Options>(parsed_options(text, where), where);
}

// Throws DataError unless the schema is counted and has a field with ids.
void check_schema(const Schema& schema, std::string_view model);

// What the schema's fields with ids ask for, with the ranks that `plan` gives to "embedding".
nn::EmbeddingOptions embedding_options(const Schema& schema, int64_t embedding_dim, double init_std, bool wide,
                                       const RankPlan& plan);

// Whether the layers behind an embedding read its latents (Basis::kNone).
bool is_folded(const nn::EmbeddingImpl& embedding);

// Note [Presence]: what the offset of a multi-valued field adds is there in rows that have a value for it, and is no
// constant. So the latents that a folded model reads have one more coordinate behind those of each such field: 1 where
// the row has a value, else 0. K counts it.

// [F] coordinates that a folded model reads of each field: k_j, and its presence.
std::vector<int64_t> latent_ranks(const nn::EmbeddingImpl& embedding);

// What the layers behind read of a lookup of ids [B, S]: values [B, F, D], of a folded embedding the latents [B, K].
at::Tensor read_of(const nn::EmbeddingImpl& embedding, const nn::EmbeddingOutput& output, const at::Tensor& ids);

// Width of what they read with the dense features: F D + Q, of a folded embedding K + Q.
int64_t feature_width(const Schema& schema, const nn::EmbeddingImpl& embedding);

// The MLP over all features, `in_features` wide.
template <typename Options>
nn::MlpOptions mlp_options(int64_t in_features, const Options& options, int64_t out_features) {
  return {.in_features = in_features,
          .hidden = options.hidden,
          .out_features = out_features,
          .batch_norm = options.batch_norm,
          .dropout = options.dropout};
}

// The other layers' ranks, with fresh factors.
void apply_fresh_plan(torch::nn::Module& model, const RankPlan& plan);

// The `count` dense features of a batch in the dtype of `values`; undefined when there are none. Throws DataError for a
// batch whose dense features are not [B, count].
at::Tensor dense_features(const Batch& batch, int64_t count, const at::Tensor& values);

// The embedding's features() of a batch, whose dense features must be [B, count].
std::optional<nn::EmbeddingFeatures> fused_features(nn::EmbeddingImpl& embedding, const Batch& batch, int64_t count,
                                                    bool interaction);

// The logit of fused features, [B]: their score, the first-order terms of dense features, bias [1], and the deep part.
at::Tensor fused_logit(const nn::EmbeddingFeatures& features, nn::Linear& wide_dense, const Batch& batch,
                       const at::Tensor& bias, nn::MlpImpl& mlp);

// values [B, F, D] or latents [B, K], dense [B, Q] or undefined -> [B, F D + Q] or [B, K + Q].
at::Tensor concatenate(const at::Tensor& values, const at::Tensor& dense);

// The first-order terms, FuxiCTR's LogisticRegression: wide [B] + wide_dense(dense) + bias [1] -> [B]. wide and
// wide_dense may be undefined.
at::Tensor first_order(const at::Tensor& wide, nn::Linear& wide_dense, const at::Tensor& dense, const at::Tensor& bias);

}  // namespace afm::models
