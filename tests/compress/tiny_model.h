#pragma once

// A model and a dataset for what works through the Model interface.

#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "libafm/compress/statistics.h"
#include "libafm/data/dataset.h"
#include "libafm/nn/embedding.h"
#include "libafm/nn/linear.h"
#include "libafm/nn/model.h"

namespace afm::testing {

inline Schema tiny_schema() {
  Schema schema;
  schema.fields = {FieldSpec{.name = "user", .cardinality = 30}, FieldSpec{.name = "item", .cardinality = 12}};
  return schema;
}

inline Dataset tiny_dataset(int64_t rows, const Schema& schema = tiny_schema()) {
  torch::manual_seed(5);
  const auto ids = torch::stack({torch::randint(30, {rows}), torch::randint(12, {rows})}, 1).to(torch::kInt32);
  return Dataset::from_tensors(schema, {ids, {}, (torch::arange(rows) % 3 == 0).to(torch::kFloat32)});
}

// logit = scale (head(dropout(relu(hidden(embedding(ids)))))).
class TinyModel : public Model {
 public:
  explicit TinyModel(double logit_scale = 1.0) : Model(tiny_schema()), scale(logit_scale) {
    torch::manual_seed(6);
    embedding = register_module("embedding",
                                nn::Embedding(nn::EmbeddingOptions{
                                    .cardinalities = schema().cardinalities(), .embedding_dim = 4, .init_std = 1.0}));
    hidden = register_module("hidden", nn::Linear(8, 10));
    head = register_module("head", nn::Linear(10, 1));
  }
  at::Tensor forward(const Batch& batch) override {
    const auto x = torch::relu(hidden(embedding(batch.ids).flatten(1)));
    return scale * head(torch::dropout(x, 0.5, is_training())).squeeze(1);
  }
  std::string_view kind() const override { return "tiny"; }
  std::string options_json() const override { return "{}"; }
  std::shared_ptr<Model> rebuild(std::string_view, const RankPlan& plan) const override {
    auto model = std::make_shared<TinyModel>(scale);
    nn::apply_plan(*model, plan);
    return model;
  }

  double scale;
  nn::Embedding embedding{nullptr};
  nn::Linear hidden{nullptr}, head{nullptr};
};

inline Statistics statistics_of(Model& model, const Dataset& dataset, int64_t max_rows = 0) {
  return collect_statistics(model, logits_of(model, dataset, max_rows));
}

}  // namespace afm::testing
