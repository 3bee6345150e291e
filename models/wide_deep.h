#pragma once

// Wide & Deep (Cheng et al., 2016): logit = wide + MLP over the concatenated embeddings and dense features.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "libafm/core/fields.h"
#include "libafm/nn/embedding.h"
#include "libafm/nn/linear.h"
#include "libafm/nn/mlp.h"
#include "libafm/nn/model.h"

namespace afm::models {

struct WideDeepOptions {
  int64_t embedding_dim = 16;
  std::vector<int64_t> hidden = {400, 400, 400};
  bool batch_norm = true;
  double dropout = 0.0;
  double init_std = 1e-4;
  bool operator==(const WideDeepOptions&) const = default;
};

constexpr auto field_list(std::type_identity<WideDeepOptions>) {
  return std::make_tuple(
      field("embedding_dim", &WideDeepOptions::embedding_dim, "Width D of the embeddings, at least 1."),
      field("hidden", &WideDeepOptions::hidden, "Widths of the hidden layers; may be empty."),
      field("batch_norm", &WideDeepOptions::batch_norm, "Batch norm after each hidden layer, before ReLU."),
      field("dropout", &WideDeepOptions::dropout, "Share of hidden units dropped, in [0, 1)."),
      field("init_std", &WideDeepOptions::init_std, "Standard deviation of fresh embeddings, at least 0."));
}

class WideDeepImpl : public Model {
 public:
  explicit WideDeepImpl(WideDeepOptions chosen, Schema counted, const RankPlan& plan = {});

  at::Tensor forward(const Batch& batch) override;
  std::string_view kind() const override { return "wide_deep"; }
  std::string options_json() const override;
  std::shared_ptr<Model> rebuild(std::string_view options_json, const RankPlan& plan) const override;
  bool repeats_itself() const override { return true; }
  FoldResult folded() const override;

  WideDeepOptions options;
  nn::Embedding embedding{nullptr};  // with wide weights
  nn::Linear wide_dense{nullptr};    // [1, Q], first-order weights of the dense features; absent when Q is 0
  nn::Mlp mlp{nullptr};
  at::Tensor wide_latent;  // [K], of a folded embedding with joint wide weights
  at::Tensor bias;         // [1]
};
TORCH_MODULE(WideDeep);

}  // namespace afm::models
