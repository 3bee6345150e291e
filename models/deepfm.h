#pragma once

// DeepFM (Guo et al., 2017): logit = wide + factorization machine + MLP over the concatenated embeddings and dense
// features.

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "libafm/core/fields.h"
#include "libafm/nn/embedding.h"
#include "libafm/nn/latent_interaction.h"
#include "libafm/nn/linear.h"
#include "libafm/nn/mlp.h"
#include "libafm/nn/model.h"

namespace afm::models {

// Where the fields of a folded model (fold(), compress/fold.h) meet. kDecoded: in the space of the embeddings, through
// a basis that the factorization machine keeps. kLatent: in that of the latents, which share an orthonormal basis. A
// model that is not folded is the same with both.
enum class InteractionSpace { kDecoded, kLatent };
constexpr std::array<std::string_view, 2> enum_names(std::type_identity<InteractionSpace>) {
  return {"decoded", "latent"};
}

struct DeepFMOptions {
  int64_t embedding_dim = 16;
  std::vector<int64_t> hidden = {400, 400, 400};
  bool batch_norm = true;
  double dropout = 0.0;
  double init_std = 1e-4;
  InteractionSpace interaction = InteractionSpace::kDecoded;
  bool operator==(const DeepFMOptions&) const = default;
};

constexpr auto field_list(std::type_identity<DeepFMOptions>) {
  return std::make_tuple(
      field("embedding_dim", &DeepFMOptions::embedding_dim, "Width D of the embeddings, at least 1."),
      field("hidden", &DeepFMOptions::hidden, "Widths of the hidden layers; may be empty."),
      field("batch_norm", &DeepFMOptions::batch_norm, "Batch norm after each hidden layer, before ReLU."),
      field("dropout", &DeepFMOptions::dropout, "Share of hidden units dropped, in [0, 1)."),
      field("init_std", &DeepFMOptions::init_std, "Standard deviation of fresh embeddings, at least 0."),
      field("interaction", &DeepFMOptions::interaction, "Where the fields of a folded model meet: decoded or latent."));
}

class DeepFMImpl : public Model {
 public:
  explicit DeepFMImpl(DeepFMOptions chosen, Schema counted, const RankPlan& plan = {});

  at::Tensor forward(const Batch& batch) override;
  std::string_view kind() const override { return "deepfm"; }
  std::string options_json() const override;
  std::shared_ptr<Model> rebuild(std::string_view options_json, const RankPlan& plan) const override;
  bool repeats_itself() const override { return true; }
  FoldResult folded() const override;

  DeepFMOptions options;
  nn::Embedding embedding{nullptr};  // with wide weights
  nn::Linear wide_dense{nullptr};    // [1, Q], first-order weights of the dense features; absent when Q is 0
  nn::Mlp mlp{nullptr};
  nn::LatentMachine interaction{nullptr};  // of a folded embedding
  at::Tensor wide_latent;                  // [K], of a folded embedding: what its offsets add, and joint wide weights
  at::Tensor bias;                         // [1]
};
TORCH_MODULE(DeepFM);

}  // namespace afm::models
