#include "libafm/compress/fold.h"

#include <memory>
#include <string>
#include <vector>

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/nn/layer.h"
#include "libafm/nn/mlp.h"
#include "tests/compress/tiny_model.h"

namespace afm {
namespace {

using testing::tiny_schema;

// logit = mlp(embedding(ids)), with the option "batch_norm".
class NormedModel : public Model {
 public:
  explicit NormedModel(bool batch_norm, const RankPlan& plan = {}) : Model(tiny_schema()), batch_norm_(batch_norm) {
    embedding = register_module("embedding",
                                nn::Embedding(nn::EmbeddingOptions{
                                    .cardinalities = schema().cardinalities(), .embedding_dim = 4, .init_std = 1.0}));
    mlp = register_module(
        "mlp", nn::Mlp(nn::MlpOptions{.in_features = 8, .hidden = {7, 5}, .batch_norm = batch_norm, .dropout = 0.2}));
    nn::apply_plan(*this, plan);
  }
  at::Tensor forward(const Batch& batch) override {
    return mlp->forward(embedding->forward(batch.ids).flatten(1)).squeeze(1);
  }
  std::string_view kind() const override { return "normed"; }
  std::string options_json() const override {
    return batch_norm_ ? R"({"batch_norm": true, "width": 7})" : R"({"batch_norm": false, "width": 7})";
  }
  std::shared_ptr<Model> rebuild(std::string_view options, const RankPlan& plan) const override {
    return std::make_shared<NormedModel>(options.find("true") != std::string_view::npos, plan);
  }

  nn::Embedding embedding{nullptr};
  nn::Mlp mlp{nullptr};

 private:
  bool batch_norm_;
};

std::shared_ptr<NormedModel> random_normed_model(const LayerPlan& first) {
  torch::manual_seed(8);
  const auto model = std::make_shared<NormedModel>(true, RankPlan{{"mlp.layers.0", first}});
  model->to(torch::kFloat64);
  const torch::NoGradGuard no_grad;
  for (auto& parameter : model->parameters()) parameter.normal_(0.0, 0.5);
  for (auto& norm : model->mlp->norms) {
    norm->running_mean.normal_();
    norm->running_var.uniform_(0.2, 3.0);
  }
  model->eval();
  return model;
}

at::Tensor logits_on_some_rows(Model& model) {
  const torch::NoGradGuard no_grad;
  torch::manual_seed(9);
  Batch batch;
  batch.ids = torch::stack({torch::randint(30, {40}), torch::randint(12, {40})}, 1).to(torch::kInt32);
  return model.forward(batch);
}

double largest_change(Model& before, Model& after) {
  const auto logits = logits_on_some_rows(before);
  REQUIRE(logits.abs().max().item<double>() > 0.01);
  return (logits - logits_on_some_rows(after)).abs().max().item<double>();
}

TEST_CASE("batch norm folds into the layer before it, whatever form that has") {
  const auto model = random_normed_model(GENERATE(LayerPlan{}, LayerPlan{.ranks = {3}}, LayerPlan{.ranks = {0}},
                                                  LayerPlan{.ranks = {3}, .activation = FactorActivation::kRelu}));
  const FoldResult result = fold_batch_norm(*model);
  CHECK(result.refused.empty());
  CHECK(result.requantized.empty());
  CHECK(largest_change(*model, *result.model) < 1e-10);
  CHECK(result.model->options_json() == R"({"batch_norm": false, "width": 7})");
  const auto& folded = dynamic_cast<const NormedModel&>(*result.model);
  CHECK(folded.mlp->norms.empty());
  CHECK(folded.dtype() == torch::kFloat64);
  CHECK((nn::rank_plan_of(*result.model) == nn::rank_plan_of(*model)));
}

TEST_CASE("control: a model whose norms are only left out has other logits") {
  const auto model = random_normed_model({});
  const auto without = fold_batch_norm(*model).model;
  const torch::NoGradGuard no_grad;
  auto& layer = *dynamic_cast<NormedModel&>(*without).mlp->layers[0];
  layer.weight.copy_(model->mlp->layers[0]->weight);
  CHECK(largest_change(*model, *without) > 1e-3);
}

TEST_CASE("a model without batch norm is copied, one without the option is refused") {
  const auto model = fold_batch_norm(*random_normed_model({})).model;
  const FoldResult again = fold_batch_norm(*model);
  CHECK(again.refused.empty());
  CHECK(largest_change(*model, *again.model) == 0.0);
  testing::TinyModel bare;
  const FoldResult refused = fold_batch_norm(bare);
  REQUIRE(refused.refused.size() == 1);
  CHECK(refused.refused[0].part == "model");
  CHECK(refused.refused[0].reason == "a model of the kind 'tiny' has no option 'batch_norm'");
}

TEST_CASE("a layer of integers is rounded anew when batch norm folds into it, and is named") {
  const Bits bits = GENERATE(Bits::kInt8, Bits::kInt4);
  const auto scale = GENERATE(ScaleBy::kRow, ScaleBy::kColumn);
  const auto model = random_normed_model({.bits = bits, .scale = scale});
  const FoldResult result = fold_batch_norm(*model);
  CHECK(result.requantized == std::vector<std::string>{"mlp.layers.0"});
  const double change = largest_change(*model, *result.model);
  CHECK(change > 0.0);
  if (scale == ScaleBy::kRow) CHECK(change < 0.05 * logits_on_some_rows(*model).abs().max().item<double>());
}

TEST_CASE("a folded batch norm leaves a model that trains") {
  const auto folded = fold_batch_norm(*random_normed_model({.ranks = {3}})).model;
  folded->train();
  Batch batch;
  batch.ids = torch::stack({torch::randint(30, {40}), torch::randint(12, {40})}, 1).to(torch::kInt32);
  folded->forward(batch).square().sum().backward();
  for (const auto& item : folded->named_parameters()) {
    INFO(item.key());
    CHECK(item.value().grad().defined());
  }
}

TEST_CASE("a model that has no folded form says so and is copied") {
  testing::TinyModel model;
  const FoldResult result = fold(model);
  REQUIRE(result.refused.size() == 1);
  CHECK(result.refused[0].part == "model");
  CHECK(result.refused[0].reason == "a model of the kind 'tiny' has no folded form");
  model.eval();
  result.model->eval();
  CHECK(torch::equal(logits_on_some_rows(model), logits_on_some_rows(*result.model)));
}

}  // namespace
}  // namespace afm
