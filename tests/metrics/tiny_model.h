#pragma once

// A model with dropout, and data for it.

#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "libafm/data/dataset.h"
#include "libafm/nn/model.h"

namespace afm::testing {

inline Schema tiny_schema(int64_t cardinality = 10) {
  Schema schema;
  schema.fields = {FieldSpec{.name = "user", .cardinality = cardinality}, FieldSpec{.name = "item", .cardinality = 7}};
  return schema;
}

inline Dataset tiny_dataset(int64_t rows, const Schema& schema = tiny_schema()) {
  const auto ids = torch::stack({torch::randint(10, {rows}), torch::randint(7, {rows})}, 1).to(torch::kInt32);
  return Dataset::from_tensors(schema, {ids, {}, (torch::arange(rows) % 3 == 0).to(torch::kFloat32)});
}

// logit = dropout(user_weight[user]) + item_weight[item].
class TinyModel : public Model {
 public:
  explicit TinyModel(Schema schema = tiny_schema()) : Model(std::move(schema)) {
    user_weight = register_parameter("user_weight", torch::randn({10}));
    item_weight = register_parameter("item_weight", torch::randn({7}));
  }
  at::Tensor forward(const Batch& batch) override {
    const auto ids = batch.ids.to(torch::kInt64);
    const auto user = user_weight.index_select(0, ids.select(1, 0));
    return torch::dropout(user, 0.5, is_training()) + item_weight.index_select(0, ids.select(1, 1));
  }
  std::string_view kind() const override { return "tiny"; }
  std::string options_json() const override { return "{}"; }
  std::shared_ptr<Model> rebuild(std::string_view, const RankPlan&) const override {
    return std::make_shared<TinyModel>(schema());
  }

  at::Tensor user_weight, item_weight;
};

}  // namespace afm::testing
