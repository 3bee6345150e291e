#pragma once

// A model with an nn::Mlp in it, float64, with the batch norm, head and options that the models of models/ have.

#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>
#include <nlohmann/json.hpp>

#include "libafm/nn/mlp.h"
#include "tests/compress/ranker.h"
#include "tests/compress/tiny_model.h"

namespace afm::testing {

struct MlpModelOptions {
  std::vector<int64_t> hidden = {14, 12, 10};
  bool batch_norm = true;
  bool head = true;  // the Mlp's own; else the model's, over [features, hidden]
};

// logit = mlp(features) + wide, or head([features, mlp(features)]) + wide.
class MlpModel : public Model {
 public:
  explicit MlpModel(MlpModelOptions chosen = {}) : Model(tiny_schema()), options(std::move(chosen)) {
    embedding = register_module(
        "embedding",
        nn::Embedding(nn::EmbeddingOptions{
            .cardinalities = schema().cardinalities(), .embedding_dim = 4, .wide = true, .init_std = 1.0}));
    mlp = register_module("mlp", nn::Mlp(nn::MlpOptions{.in_features = 8,
                                                        .hidden = options.hidden,
                                                        .out_features = options.head ? 1 : 0,
                                                        .batch_norm = options.batch_norm}));
    if (!options.head) head = register_module("head", nn::Linear(8 + options.hidden.back(), 1));
    to(torch::kDouble);
  }
  at::Tensor forward(const Batch& batch) override {
    const auto found = embedding->lookup(batch.ids);
    const at::Tensor features = found.values.flatten(1), deep = mlp(features);
    const at::Tensor logit = options.head ? deep : head(torch::cat({features, deep}, 1));
    return logit.squeeze(1) + 0.2 * found.wide;
  }
  std::string_view kind() const override { return "mlp"; }
  std::string options_json() const override { return nlohmann::json{{"hidden", options.hidden}}.dump(); }
  std::shared_ptr<Model> rebuild(std::string_view json, const RankPlan& plan) const override {
    MlpModelOptions other = options;
    other.hidden = nlohmann::json::parse(json).at("hidden").get<std::vector<int64_t>>();
    auto model = std::make_shared<MlpModel>(other);
    nn::apply_plan(*model, plan);
    return model;
  }

  MlpModelOptions options;
  nn::Embedding embedding{nullptr};
  nn::Mlp mlp{nullptr};
  nn::Linear head{nullptr};
};

// Inputs and outputs of a layer over a dataset.
struct LayerRows {
  at::Tensor input, output;
};

inline LayerRows rows_of(Model& model, nn::Layer& layer, const Dataset& dataset) {
  const torch::NoGradGuard no_grad;
  LayerRows rows;
  layer.set_output_hook([&](const at::Tensor& input, const at::Tensor& output) {
    rows = {input.clone(), output.clone()};
  });
  model.forward(dataset.range(0, dataset.size()));
  layer.set_output_hook({});
  return rows;
}

// With tables, biases and batch norms such as training leaves them: units vary, and running moments are about those of
// the rows.
inline std::shared_ptr<MlpModel> make_mlp_model(MlpModelOptions options = {}, int64_t seed = 3) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  auto model = std::make_shared<MlpModel>(std::move(options));
  fill_table(*model->embedding);
  model->eval();
  const torch::NoGradGuard no_grad;
  const Dataset dataset = tiny_dataset(400);
  for (std::size_t i = 0; i < model->mlp->layers.size(); ++i) {
    model->mlp->layers[i]->weight.mul_(1.5);
    model->mlp->layers[i]->bias.normal_(0.0, 0.5);
    if (model->mlp->norms.empty()) continue;
    const auto& norm = model->mlp->norms[i];
    const at::Tensor output = rows_of(*model, *model->mlp->layers[i], dataset).output;
    norm->weight.uniform_(0.7, 1.5);
    norm->bias.normal_(0.0, 0.3);
    norm->running_mean.copy_(output.mean(0) + 0.2 * output.std(0) * torch::randn_like(norm->running_mean));
    norm->running_var.copy_(output.var(0) * torch::empty_like(norm->running_var).uniform_(0.5, 2.0));
  }
  return model;
}

inline Statistics full_statistics(Model& model, const Dataset& dataset, bool metric = true) {
  return collect_statistics(model, logits_of(model, dataset), {.metric = metric, .input_moments = true});
}

}  // namespace afm::testing
