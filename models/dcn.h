#pragma once

// Deep & Cross Network (Wang et al., 2017; DCN-V2: cross = matrix, Wang et al., 2021), parallel form:
//   x0 = embeddings and dense features, concatenated [B, n];  logit = head([cross(x0), mlp(x0)])
// Folded (vector form): u = latents and dense features [B, K + Q];  logit = latent_cross(u) + head(mlp(u))

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "libafm/core/fields.h"
#include "libafm/nn/embedding.h"
#include "libafm/nn/interaction.h"
#include "libafm/nn/latent_interaction.h"
#include "libafm/nn/linear.h"
#include "libafm/nn/mlp.h"
#include "libafm/nn/model.h"

namespace afm::models {

struct DCNOptions {
  int64_t embedding_dim = 16;
  std::vector<int64_t> hidden = {400, 400, 400};
  bool batch_norm = true;
  double dropout = 0.0;
  double init_std = 1e-4;
  int64_t cross_layers = 3;
  nn::CrossForm cross = nn::CrossForm::kVector;
  bool operator==(const DCNOptions&) const = default;
};

constexpr auto field_list(std::type_identity<DCNOptions>) {
  return std::make_tuple(
      field("embedding_dim", &DCNOptions::embedding_dim, "Width D of the embeddings, at least 1."),
      field("hidden", &DCNOptions::hidden, "Widths of the hidden layers; empty = the cross network alone."),
      field("batch_norm", &DCNOptions::batch_norm, "Batch norm after each hidden layer, before ReLU."),
      field("dropout", &DCNOptions::dropout, "Share of hidden units dropped, in [0, 1)."),
      field("init_std", &DCNOptions::init_std, "Standard deviation of fresh embeddings, at least 0."),
      field("cross_layers", &DCNOptions::cross_layers, "Layers of the cross network, at least 1."),
      field("cross", &DCNOptions::cross, "Cross weights: one vector (DCN) or one matrix (DCN-V2) per layer."));
}

class DCNImpl : public Model {
 public:
  explicit DCNImpl(DCNOptions chosen, Schema counted, const RankPlan& plan = {});

  at::Tensor forward(const Batch& batch) override;
  std::string_view kind() const override { return "dcn"; }
  std::string options_json() const override;
  std::shared_ptr<Model> rebuild(std::string_view options_json, const RankPlan& plan) const override;
  bool repeats_itself() const override { return true; }
  FoldResult folded() const override;

  DCNOptions options;
  nn::Embedding embedding{nullptr};
  nn::CrossNet cross{nullptr};
  nn::LatentCross latent_cross{nullptr};  // "cross" of a folded embedding, with its part of the head
  nn::Mlp mlp{nullptr};                   // without output layer; absent when `hidden` is empty
  nn::Linear head{nullptr};               // [1, n + last hidden width]; folded: [1, last hidden width], absent without

 private:
  void add_cross(int64_t width);
  at::Tensor features_of(const Batch& batch);        // [B, F D + Q], of a folded embedding [B, K + Q]
  at::Tensor head_input(const at::Tensor& x0);       // [cross(x0), mlp(x0)]
  at::Tensor logits_in_parts(const at::Tensor& x0);  // the same logits [B], the parts never put side by side
};
TORCH_MODULE(DCN);

}  // namespace afm::models
