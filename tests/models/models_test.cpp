#include "models/models.h"

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/core/error.h"
#include "libafm/nn/layer.h"
#include "tests/core/temporary_folder.h"
#include "tests/models/clicks.h"

namespace afm::models {

using testing::click_batch;
using testing::click_schema;
using testing::message_of;

std::string any_name() { return GENERATE(as<std::string>{}, "deepfm", "dcn", "wide_deep"); }

std::string refused_options(const std::string& name, const std::string& options) {
  return message_of<std::invalid_argument>([&] { make_model(name, options, click_schema()); });
}

TEST_CASE("every model gives one finite logit per row and a gradient to every parameter") {
  const auto model = make_model(any_name(), R"({"hidden": [8, 6], "dropout": 0.1, "init_std": 0.1})", click_schema());
  const auto logits = model->forward(click_batch(20));
  CHECK(logits.sizes() == at::IntArrayRef({20}));
  CHECK(logits.isfinite().all().item<bool>());
  logits.square().sum().backward();
  for (const auto& item : model->named_parameters()) {
    INFO(item.key());
    CHECK(item.value().grad().defined());
  }
}

TEST_CASE("DCN's head sees the parts side by side where somebody watches it, and the logits are the same") {
  const std::string cross = GENERATE(as<std::string>{}, "vector", "matrix"), hidden = GENERATE("[]", "[8, 6]");
  const auto model =
      make_model("dcn", R"({"cross": ")" + cross + R"(", "init_std": 0.5, "hidden": )" + hidden + "}", click_schema());
  model->to(torch::kFloat64);
  model->eval();
  auto& dcn = dynamic_cast<DCNImpl&>(*model);
  const torch::NoGradGuard no_grad;
  for (auto& parameter : dcn.cross->parameters()) parameter.normal_(0, 0.3);
  dcn.head->bias.fill_(0.7);
  const Batch batch = click_batch(20);
  const at::Tensor in_parts = dcn.forward(batch);
  at::Tensor seen;
  dcn.head->set_output_hook([&](const at::Tensor& input, const at::Tensor&) { seen = input; });
  CHECK(at::allclose(dcn.forward(batch), in_parts, 1e-10, 1e-12));
  CHECK(seen.sizes() == at::IntArrayRef({20, dcn.head->options.in_features}));
  CHECK_FALSE(at::allclose(dcn.forward(batch) + 1e-6, in_parts, 1e-10, 1e-12));
}

TEST_CASE("a model without dense features and one without hidden layers work") {
  const auto name = any_name();
  const auto without_dense = make_model(name, R"({"hidden": [4]})", click_schema(/*dense=*/0));
  CHECK(without_dense->forward(click_batch(5, /*dense=*/0)).sizes() == at::IntArrayRef({5}));
  const auto shallow = make_model(name, R"({"hidden": []})", click_schema());
  CHECK(shallow->forward(click_batch(5)).sizes() == at::IntArrayRef({5}));
}

TEST_CASE("an empty batch has no logits") {
  const auto model = make_model(any_name(), R"({"hidden": [4]})", click_schema());
  model->eval();
  CHECK(model->forward(click_batch(0)).sizes() == at::IntArrayRef({0}));
}

TEST_CASE("options survive JSON, and a model states all of them") {
  const auto model = make_model("dcn", R"({"cross": "matrix", "hidden": [5]})", click_schema());
  const auto again = make_model("dcn", model->options_json(), click_schema());
  CHECK(dynamic_cast<const DCNImpl&>(*again).options == DCNOptions{.hidden = {5}, .cross = nn::CrossForm::kMatrix});
  CHECK(model->options_json().find("\"cross_layers\":3") != std::string::npos);
}

TEST_CASE("the table of models names each by its own kind") {
  CHECK(model_names() == std::vector<std::string>{"deepfm", "dcn", "wide_deep"});
  for (const auto& name : model_names()) CHECK(make_model(name, R"({"hidden": [2]})", click_schema())->kind() == name);
}

TEST_CASE("fresh weights are those that FuxiCTR would draw") {
  torch::manual_seed(1);
  const DeepFM model(DeepFMOptions{.embedding_dim = 32, .hidden = {300}, .init_std = 0.01}, click_schema(2, 5000));
  CHECK(std::abs(model->embedding->weight.std().item<double>() - 0.01) < 1e-4);
  CHECK(std::abs(model->embedding->wide_weights().std().item<double>() - 0.01) < 1e-3);
  const auto& first = *model->mlp->layers[0];
  const double xavier = std::sqrt(2.0 / static_cast<double>(first.options.in_features + 300));
  CHECK(std::abs(first.weight.std().item<double>() - xavier) < 0.02 * xavier);
  CHECK(first.bias.abs().max().item<double>() == 0.0);
  CHECK(model->bias.item<double>() == 0.0);
  CHECK_FALSE(model->wide_dense->bias.defined());
  const DCN crossed(DCNOptions{}, click_schema());
  CHECK(crossed->cross->bias.abs().max().item<double>() == 0.0);
  CHECK(crossed->head->bias.item<double>() == 0.0);
}

TEST_CASE("a model in float64 takes float32 dense features") {
  const auto model = make_model(any_name(), R"({"hidden": [4]})", click_schema());
  model->to(torch::kFloat64);
  CHECK(model->forward(click_batch(6)).scalar_type() == torch::kFloat64);
}

TEST_CASE("a model built with a rank plan has those ranks and fresh factors") {
  const RankPlan plan = {{"embedding", {.ranks = {2, 0}, .basis = Basis::kShared}},
                         {"mlp.layers.1", {.ranks = {3}, .activation = FactorActivation::kRelu}}};
  const auto model = make_model(any_name(), R"({"embedding_dim": 4, "hidden": [8, 6]})", click_schema(), plan);
  CHECK((nn::rank_plan_of(*model) == plan));
  for (const auto& item : model->named_parameters()) {
    INFO(item.key());
    CHECK(item.value().isfinite().all().item<bool>());
    CHECK(item.value().abs().max().item<double>() < 10.0);
  }
  CHECK(nn::rank_plan_of(*model->build_like({})).empty());
  CHECK((nn::rank_plan_of(*copy_of(*model)) == plan));
}

TEST_CASE("a model built with a plan of joint, tiered integers has that form") {
  const RankPlan plan = {{"embedding",
                          {.ranks = {2, 1},
                           .joint = true,
                           .tiers = {{{.rows = 2, .rank = 2}, {.rows = 8, .rank = 1, .shared = true}}, {}},
                           .bits = Bits::kInt8,
                           .scale = ScaleBy::kColumn}},
                         {"mlp.head", {.bits = Bits::kInt8}}};
  const auto model = make_model("deepfm", R"({"embedding_dim": 4, "hidden": [8]})", click_schema(), plan);
  CHECK((nn::rank_plan_of(*model) == plan));
  CHECK((nn::rank_plan_of(*copy_of(*model)) == plan));
  CHECK(model->forward(click_batch(5)).isfinite().all().item<bool>());
}

TEST_CASE("a model takes a multi-valued field that is cut to one value and empty in some rows") {
  Schema schema;
  schema.fields = {FieldSpec{.name = "user", .cardinality = 5},
                   FieldSpec{.name = "genres", .kind = FieldKind::kMulti, .cardinality = 4, .max_values = 1}};
  const auto model = make_model(any_name(), R"({"embedding_dim": 4, "hidden": [4]})", schema);
  Batch batch;
  batch.ids = torch::tensor(std::vector<int64_t>{1, kEmptySlot, 2, 3}).view({2, 2});
  CHECK(model->forward(batch).isfinite().all().item<bool>());
}

TEST_CASE("a plan that does not fit the model is refused") {
  const auto refused = [](const RankPlan& plan) {
    return message_of<std::invalid_argument>([&] { make_model("deepfm", R"({"hidden": [8]})", click_schema(), plan); });
  };
  CHECK(refused({{"mlp.layers.1", {.ranks = {1}}}}) ==
        "the rank plan names 'mlp.layers.1', which is no layer of the model; its layers are: embedding, wide_dense, "
        "mlp.layers.0, mlp.head");
  CHECK(refused({{"mlp.layers.0", {.ranks = {9}}}}) ==
        "the rank plan does not fit layer 'mlp.layers.0': LinearOptions.rank must be in [0, 8] for a layer [8, 34], "
        "got 9");
  CHECK_FALSE(refused({{"embedding", {.ranks = {1}}}}).empty());
  CHECK_FALSE(refused({{"embedding", {.ranks = {1, 17}}}}).empty());
  CHECK_FALSE(refused({{"embedding", {.ranks = {1, 1}, .activation = FactorActivation::kRelu}}}).empty());
}

TEST_CASE("bad options are refused with one sentence") {
  const std::string where = GENERATE(as<std::string>{}, "DeepFMOptions", "DCNOptions", "WideDeepOptions");
  const std::string name = where == "DCNOptions" ? "dcn" : where == "DeepFMOptions" ? "deepfm" : "wide_deep";
  CHECK(refused_options(name, R"({"embedding_dim": 0})") == where + ".embedding_dim must be at least 1, got 0");
  CHECK(refused_options(name, R"({"hidden": [4, 0]})") == where + ".hidden must have widths of at least 1, got 0");
  CHECK(refused_options(name, R"({"dropout": 1.0})") == where + ".dropout must be in [0, 1), got 1");
  CHECK(refused_options(name, R"({"init_std": -0.5})") == where + ".init_std must be at least 0, got -0.5");
  CHECK(refused_options(name, R"({"dropuot": 0.1})").starts_with(where + " has no field 'dropuot'; its fields are: "));
  CHECK(refused_options(name, R"({"dropout": "much"})") == where + R"(.dropout must be a number, got "much")");
  CHECK(refused_options(name, "{").starts_with(where + " must be JSON: "));
}

TEST_CASE("what only DCN has is checked, and an unknown model lists the known ones") {
  CHECK(refused_options("dcn", R"({"cross_layers": 0})") == "DCNOptions.cross_layers must be at least 1, got 0");
  CHECK(refused_options("dcn", R"({"cross": "tensor"})") ==
        R"(DCNOptions.cross must be one of vector, matrix, got "tensor")");
  CHECK(refused_options("depfm", "{}") == "there is no model 'depfm'; the models are: deepfm, dcn, wide_deep");
}

TEST_CASE("a schema that is not counted, or has no ids, is refused") {
  const auto name = any_name();
  Schema uncounted = click_schema();
  uncounted.fields[0].cardinality = 0;
  CHECK_THROWS_AS(make_model(name, "{}", uncounted), DataError);
  Schema numbers = click_schema();
  std::erase_if(numbers.fields, [](const FieldSpec& field) { return field.has_ids(); });
  CHECK(message_of<DataError>([&] {
          make_model(name, "{}", numbers);
        }).ends_with(" needs a schema with a categorical or multi-valued field, got numeric fields alone"));
}

TEST_CASE("a batch whose dense features do not fit the schema is refused") {
  const auto model = make_model(any_name(), R"({"hidden": [4]})", click_schema());
  const auto refused = [&](const at::Tensor& dense) {
    Batch batch = click_batch(5);
    batch.dense = dense;
    return message_of<DataError>([&] { model->forward(batch); });
  };
  CHECK(refused({}) == "the dense features of a batch must have the shape [5, 2], got none");
  CHECK(refused(torch::zeros({5, 3})) == "the dense features of a batch must have the shape [5, 2], got [5, 3]");
  CHECK(refused(torch::zeros({4, 2})) == "the dense features of a batch must have the shape [5, 2], got [4, 2]");
  CHECK(refused(torch::zeros({5, 2})).empty());
}

}  // namespace afm::models
