#pragma once

// What tests of this room share: a ranking model with every kind of layer, data for it, and numerical gradients.

#include <memory>
#include <string>
#include <string_view>

#include <torch/torch.h>

#include "libafm/nn/embedding.h"
#include "libafm/nn/layer.h"
#include "libafm/nn/linear.h"
#include "libafm/nn/model.h"

namespace afm::testing {

inline Schema tiny_schema() {
  Schema schema;
  schema.fields = {FieldSpec{.name = "user", .cardinality = 10}, FieldSpec{.name = "item", .cardinality = 7}};
  return schema;
}

inline at::Tensor tiny_ids(int64_t rows) {
  return torch::stack({torch::randint(10, {rows}), torch::randint(7, {rows})}, 1).to(torch::kInt32);
}

// logit = wide + head(relu(norm(hidden(embeddings)))).
class TinyRanker : public Model {
 public:
  explicit TinyRanker(const RankPlan& plan = {}, Schema schema = tiny_schema()) : Model(std::move(schema)) {
    embedding = register_module("embedding", nn::Embedding(nn::EmbeddingOptions{.cardinalities = {10, 7},
                                                                                .embedding_dim = 4,
                                                                                .slots = {},
                                                                                .names = {},
                                                                                .wide = true,
                                                                                .init_std = 0.3,
                                                                                .ranks = {}}));
    hidden = register_module("hidden", nn::Linear(8, 6));
    norm = register_module("norm", torch::nn::BatchNorm1d(6));
    head = register_module("head", nn::Linear(6, 1));
    nn::apply_plan(*this, plan);
    for (const auto& [path, layer] : nn::layers_of(*this)) layer->reset_parameters();
  }
  at::Tensor forward(const Batch& batch) override {
    const auto [values, wide, latents] = embedding->lookup(batch.ids);
    return wide + head->forward(torch::relu(norm->forward(hidden->forward(values.flatten(1))))).squeeze(1);
  }
  std::string_view kind() const override { return "tiny"; }
  std::string options_json() const override { return R"({"width": 6})"; }
  std::shared_ptr<Model> rebuild(std::string_view, const RankPlan& plan) const override {
    return std::make_shared<TinyRanker>(plan, schema());
  }

  nn::Embedding embedding{nullptr};
  nn::Linear hidden{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};
  nn::Linear head{nullptr};
};

inline RankPlan tiny_plan() {
  return {{"embedding", {.ranks = {2, 0}}},
          {"hidden", {.ranks = {3}, .activation = FactorActivation::kRelu}},
          {"head", {.ranks = {0}}}};
}

// Central differences of loss() with respect to every element of `tensor` (float64).
template <typename Loss>
at::Tensor numerical_gradient(at::Tensor tensor, const Loss& loss) {
  constexpr double kStep = 1e-6;
  const torch::NoGradGuard no_grad;
  at::Tensor gradient = torch::zeros_like(tensor);
  at::Tensor values = tensor.view({-1});
  for (int64_t i = 0; i < values.numel(); ++i) {
    const double kept = values[i].item<double>();
    values[i] = kept + kStep;
    const double above = loss().template item<double>();
    values[i] = kept - kStep;
    const double below = loss().template item<double>();
    values[i] = kept;
    gradient.view({-1})[i] = (above - below) / (2 * kStep);
  }
  return gradient;
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return a.numel() == 0 ? 0.0 : (a - b).abs().max().item<double>();
}

}  // namespace afm::testing
