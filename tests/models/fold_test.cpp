#include <stdexcept>
#include <string>
#include <vector>

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/nn/layer.h"
#include "libafm/nn/model_file.h"
#include "models/models.h"
#include "tests/core/temporary_folder.h"
#include "tests/models/clicks.h"

namespace afm::models {
namespace {

using testing::click_batch;
using testing::click_schema;
using testing::message_of;
using testing::TemporaryFolder;

// Three fields with one id each, and two numbers.
Schema plain_schema() {
  Schema schema;
  schema.fields = {FieldSpec{.name = "user", .cardinality = 12}, FieldSpec{.name = "item", .cardinality = 7},
                   FieldSpec{.name = "hour", .cardinality = 4}, FieldSpec{.name = "age", .kind = FieldKind::kNumeric},
                   FieldSpec{.name = "price", .kind = FieldKind::kNumeric}};
  return schema;
}

Batch plain_batch(int64_t rows) {
  const auto ids = torch::stack({torch::randint(12, {rows}), torch::randint(7, {rows}), torch::randint(4, {rows})}, 1);
  return {ids.to(torch::kInt32), torch::randn({rows, 2}), torch::randint(2, {rows}).to(torch::kFloat32)};
}

nn::Embedding embedding_of(Model& model) {
  return nn::Embedding(std::dynamic_pointer_cast<nn::EmbeddingImpl>(model.named_modules()["embedding"]));
}

// Sizes that matter: larger than the initial ones, so that no term of the identities is lost in rounding.
void randomise(Model& model) {
  const torch::NoGradGuard no_grad;
  for (const auto& item : model.named_parameters()) {
    const bool is_basis = item.key() == "embedding.basis";
    if (!is_basis) item.value().normal_(0.0, item.value().dim() == 2 ? 0.2 : 0.4);
  }
  for (const auto& item : model.named_buffers()) {
    if (item.key().ends_with("running_mean")) item.value().normal_();
    if (item.key().ends_with("running_var")) item.value().uniform_(0.3, 2.0);
  }
}

// Gradient steps on random labels: bases are no longer orthonormal, offsets no longer orthogonal to them.
void fine_tune(Model& model) {
  torch::optim::Adam adam(model.parameters(), torch::optim::AdamOptions(0.03));
  model.train();
  for (int step = 0; step < 10; ++step) {
    const Batch batch = plain_batch(40);
    adam.zero_grad();
    const auto logits = model.forward(batch);
    torch::binary_cross_entropy_with_logits(logits, batch.label.to(logits.scalar_type())).backward();
    adam.step();
  }
  model.eval();
}

struct Form {
  std::string options;
  RankPlan plan;
};

const std::vector<std::vector<Tier>> kTiers = {
    {{.rows = 4, .rank = 3}, {.rows = 5, .rank = 1}, {.rows = 3, .rank = 1, .shared = true}},
    {},
    {{.rows = 1, .rank = 1}, {.rows = 3, .rank = 0}}};

// Every way to write the embedding that has a basis, with the first layer dense, a pair, and a pair with a ReLU.
Form any_form(const std::string& name) {
  const Basis basis = GENERATE(Basis::kField, Basis::kShared);
  const bool tiers = GENERATE(false, true);
  const bool joint = GENERATE(false, true) && basis == Basis::kField && name != "dcn";
  const auto first = GENERATE(LayerPlan{}, LayerPlan{.ranks = {2}}, LayerPlan{.ranks = {7}},
                              LayerPlan{.ranks = {3}, .activation = FactorActivation::kRelu});
  LayerPlan embedding{.ranks = {3, 2, 1}, .basis = basis, .joint = joint};
  if (tiers) embedding.tiers = kTiers;
  return {R"({"embedding_dim": 4, "hidden": [9, 6]})", {{"embedding", embedding}, {"mlp.layers.0", first}}};
}

std::shared_ptr<Model> random_model(const std::string& name, const Form& form, bool tuned) {
  torch::manual_seed(17);
  const auto model = make_model(name, form.options, plain_schema(), form.plan);
  model->to(torch::kFloat64);
  randomise(*model);
  if (tuned) fine_tune(*model);
  model->eval();
  return model;
}

double difference(Model& a, Model& b, const Batch& batch) {
  const torch::NoGradGuard no_grad;
  const auto x = a.forward(batch), y = b.forward(batch);
  REQUIRE(x.abs().max().item<double>() > 0.1);  // there is something to lose
  return (x - y).abs().max().item<double>();
}

std::string fold_model_name() { return GENERATE(as<std::string>{}, "deepfm", "dcn", "wide_deep"); }

TEST_CASE("a folded model has the logits of the model, before and after fine-tuning") {
  const std::string name = fold_model_name();
  const bool tuned = GENERATE(false, true);
  const auto model = random_model(name, any_form(name), tuned);
  const FoldResult result = model->folded();
  CHECK(result.refused.empty());
  CHECK(result.requantized.empty());
  CHECK(difference(*model, *result.model, plain_batch(60)) < 1e-10);
  CHECK(embedding_of(*result.model)->options.basis == Basis::kNone);
  CHECK_FALSE(embedding_of(*result.model)->basis.defined());
}

TEST_CASE("a folded model without hidden layers has the logits of the model") {
  const std::string name = fold_model_name();
  const Basis basis = GENERATE(Basis::kField, Basis::kShared);
  const auto ranks = GENERATE(std::vector<int64_t>{3, 0, 2}, std::vector<int64_t>{0, 0, 0});
  const Form form{R"({"embedding_dim": 4, "hidden": []})", {{"embedding", {.ranks = ranks, .basis = basis}}}};
  const auto model = random_model(name, form, /*tuned=*/true);
  const FoldResult result = model->folded();
  CHECK(result.refused.empty());
  CHECK(difference(*model, *result.model, plain_batch(60)) < 1e-10);
}

TEST_CASE("control: a folded model without the constants of its offsets has other logits") {
  const std::string name = fold_model_name();
  const Basis basis = GENERATE(Basis::kField, Basis::kShared);
  const Form form{R"({"embedding_dim": 4, "hidden": [9]})", {{"embedding", {.ranks = {3, 2, 1}, .basis = basis}}}};
  const auto model = random_model(name, form, /*tuned=*/true);
  const auto without = copy_of(*model);
  {
    const torch::NoGradGuard no_grad;
    embedding_of(*without)->offset.zero_();
  }
  CHECK(difference(*model, *without->folded().model, plain_batch(60)) > 1e-4);
}

TEST_CASE("a shared basis is folded into a smaller model whose fields meet in the space of latents") {
  const Form form{R"({"embedding_dim": 4, "hidden": [9]})",
                  {{"embedding", {.ranks = {2, 2, 1}, .basis = Basis::kShared}}}};
  const auto model = random_model("deepfm", form, /*tuned=*/true);
  const auto folded = model->folded().model;
  const auto& deepfm = dynamic_cast<const DeepFMImpl&>(*folded);
  CHECK(deepfm.options.interaction == InteractionSpace::kLatent);
  CHECK_FALSE(deepfm.interaction->basis.defined());
  CHECK(parameter_count(*folded) < parameter_count(*model));
  const Form apart{form.options, {{"embedding", {.ranks = {2, 2, 1}}}}};
  const auto decoded = random_model("deepfm", apart, /*tuned=*/false)->folded().model;
  CHECK(dynamic_cast<const DeepFMImpl&>(*decoded).interaction->basis.sizes() == at::IntArrayRef({5, 4}));
}

TEST_CASE("a head that is a pair of factors is folded with the cross network") {
  const Form form{R"({"embedding_dim": 4, "hidden": [6]})",
                  {{"embedding", {.ranks = {3, 2, 1}}}, {"head", {.ranks = {GENERATE(0, 1)}}}}};
  const auto model = random_model("dcn", form, /*tuned=*/true);
  const FoldResult result = model->folded();
  CHECK(result.refused.empty());
  CHECK(difference(*model, *result.model, plain_batch(60)) < 1e-10);
}

TEST_CASE("a pair in front becomes one matrix where that is not larger") {
  const Form form{R"({"embedding_dim": 4, "hidden": [9]})",
                  {{"embedding", {.ranks = {3, 2, 1}}}, {"mlp.layers.0", {.ranks = {GENERATE(2, 7)}}}}};
  const auto model = random_model("wide_deep", form, /*tuned=*/false);
  const auto before = nn::rank_plan_of(*model).at("mlp.layers.0").ranks[0];
  const RankPlan plan = nn::rank_plan_of(*model->folded().model);
  CHECK(plan.contains("mlp.layers.0") == (before == 2));
}

TEST_CASE("a folded model survives its file, copies and folding again, and stays in float32") {
  const std::string name = fold_model_name();
  const auto model = random_model(name, any_form(name), /*tuned=*/true);
  model->to(torch::kFloat32);
  model->notes["trained_with"] = "care";
  const auto folded = model->folded().model;
  CHECK(folded->dtype() == torch::kFloat32);
  const Batch batch = plain_batch(30);
  CHECK(difference(*model, *folded, batch) < 1e-4);
  const torch::NoGradGuard no_grad;
  const TemporaryFolder folder;
  save_model(*folded, folder / "folded.safetensors");
  const auto loaded = load_model(folder / "folded.safetensors");
  CHECK(torch::equal(loaded->forward(batch), folded->forward(batch)));
  CHECK(loaded->notes.at("trained_with") == "care");
  CHECK(torch::equal(copy_of(*folded)->forward(batch), folded->forward(batch)));
  const FoldResult again = folded->folded();
  CHECK(again.refused.empty());
  CHECK(torch::equal(again.model->forward(batch), folded->forward(batch)));
}

TEST_CASE("a folded model trains: every parameter gets a gradient and the loss falls") {
  const std::string name = fold_model_name();
  const auto model = random_model(name, any_form(name), /*tuned=*/false);
  const auto folded = model->folded().model;
  folded->train();
  const Batch batch = plain_batch(50);
  torch::optim::Adam adam(folded->parameters(), torch::optim::AdamOptions(0.01));
  const auto loss = [&] {
    return torch::binary_cross_entropy_with_logits(folded->forward(batch), batch.label.to(torch::kFloat64));
  };
  const double before = loss().item<double>();
  for (int step = 0; step < 30; ++step) {
    adam.zero_grad();
    loss().backward();
    adam.step();
  }
  for (const auto& item : folded->named_parameters()) {
    INFO(item.key());
    CHECK(item.value().grad().defined());
  }
  CHECK(loss().item<double>() < 0.95 * before);
}

TEST_CASE("a fresh model may be built folded") {
  const std::string name = fold_model_name();
  const RankPlan plan = {{"embedding", {.ranks = {2, 0, 1}, .basis = Basis::kNone}}};
  const auto model = make_model(name, R"({"embedding_dim": 4, "hidden": [5]})", plain_schema(), plan);
  CHECK(model->forward(plain_batch(6)).isfinite().all().item<bool>());
  CHECK((nn::rank_plan_of(*model) == plan));
}

TEST_CASE("latents of integers keep their codes, a first layer of integers is named") {
  const std::string name = fold_model_name();
  const Basis basis = GENERATE(Basis::kField, Basis::kShared);
  const LayerPlan embedding{.ranks = {3, 2, 1}, .basis = basis, .bits = Bits::kInt8};
  const Form form{R"({"embedding_dim": 4, "hidden": [9]})", {{"embedding", embedding}}};
  const auto model = random_model(name, form, /*tuned=*/true);  // a shared basis is not orthonormal any more
  const FoldResult result = model->folded();
  CHECK(result.requantized.empty());
  CHECK(torch::equal(embedding_of(*result.model)->latent, embedding_of(*model)->latent));
  CHECK(difference(*model, *result.model, plain_batch(60)) < 1e-10);

  Form both = form;
  both.plan["mlp.layers.0"] = {.ranks = {2}, .bits = Bits::kInt8};
  both.plan["embedding"].bits = Bits::kFloat;
  const FoldResult rounded = random_model(name, both, /*tuned=*/true)->folded();
  CHECK(rounded.requantized == std::vector<std::string>{"mlp.layers.0"});
}

TEST_CASE("integers on a shared basis that is orthonormal meet in the space of latents") {
  const LayerPlan embedding{.ranks = {3, 2, 1}, .basis = Basis::kShared, .bits = Bits::kInt8};
  const auto model =
      random_model("deepfm", {R"({"embedding_dim": 4, "hidden": [9]})", {{"embedding", embedding}}}, false);
  model->to(torch::kFloat32);
  const auto folded = model->folded().model;
  CHECK(dynamic_cast<const DeepFMImpl&>(*folded).options.interaction == InteractionSpace::kLatent);
  CHECK(torch::equal(embedding_of(*folded)->latent, embedding_of(*model)->latent));
  CHECK(difference(*model, *folded, plain_batch(60)) < 1e-4);
}

std::string refused_part(Model& model, std::string* reason = nullptr) {
  const FoldResult result = model.folded();
  REQUIRE(result.refused.size() == 1);
  if (reason != nullptr) *reason = result.refused[0].reason;
  CHECK((nn::rank_plan_of(*result.model) == nn::rank_plan_of(model)));
  return result.refused[0].part;
}

TEST_CASE("what cannot be folded is refused by name, and the model stays as it is") {
  std::string reason;
  const auto dense = make_model(fold_model_name(), R"({"hidden": [4]})", plain_schema());
  CHECK(refused_part(*dense, &reason) == "embedding");
  CHECK(reason == "it is dense: it has no basis to fold");
  const auto matrix =
      make_model("dcn", R"({"cross": "matrix"})", plain_schema(), {{"embedding", {.ranks = {1, 1, 1}}}});
  CHECK(refused_part(*matrix, &reason) == "cross");
  CHECK(reason == "a cross network of matrices multiplies the embeddings themselves, element by element");
  const LayerPlan relu{.ranks = {1}, .activation = FactorActivation::kRelu};
  const auto head = make_model("dcn", "{}", plain_schema(), {{"embedding", {.ranks = {1, 1, 1}}}, {"head", relu}});
  CHECK(refused_part(*head) == "head");
  Schema ids = plain_schema();
  ids.fields.resize(3);
  const auto flat = make_model(fold_model_name(), "{}", ids, {{"embedding", {.ranks = {0, 0, 0}}}});
  CHECK(refused_part(*flat, &reason) == "embedding");
  CHECK(reason == "all its ranks are 0 and there are no dense features: nothing to read");
}

TEST_CASE("a pair with a ReLU of a rank above what it would read is refused") {
  const LayerPlan relu{.ranks = {6}, .activation = FactorActivation::kRelu};
  const RankPlan plan = {{"embedding", {.ranks = {1, 1, 1}}}, {"mlp.layers.0", relu}};
  std::string reason;
  const auto model = make_model(fold_model_name(), R"({"hidden": [8]})", plain_schema(), plan);
  CHECK(refused_part(*model, &reason) == "mlp.layers.0");
  CHECK(reason ==
        "its factors have the rank 6 and a ReLU between them, but there are only 5 latents and dense features "
        "to read");
}

TEST_CASE("a multi-valued field adds its offset where it has a value, also when it is folded") {
  torch::manual_seed(3);
  const std::string name = fold_model_name();
  const Basis basis = GENERATE(Basis::kField, Basis::kShared);
  const bool joint = GENERATE(false, true) && basis == Basis::kField && name != "dcn";
  const auto bits = GENERATE(Bits::kFloat, Bits::kInt8);
  const LayerPlan embedding{.ranks = {2, 3}, .basis = basis, .joint = joint, .bits = bits};
  const auto model =
      make_model(name, R"({"embedding_dim": 4, "hidden": [5]})", click_schema(), {{"embedding", embedding}});
  model->to(torch::kFloat64);
  randomise(*model);
  model->eval();
  const Batch batch = click_batch(80);
  batch.ids.narrow(0, 0, 20).narrow(1, 1, 3).fill_(kEmptySlot);
  const FoldResult result = model->folded();
  CHECK(result.refused.empty());
  CHECK(difference(*model, *result.model, batch) < 1e-10);
  if (bits != Bits::kFloat) return;
  const TemporaryFolder folder;
  save_model(*result.model, folder / "folded.safetensors");
  const torch::NoGradGuard no_grad;
  const auto loaded = load_model(folder / "folded.safetensors");
  CHECK(torch::equal(loaded->forward(batch), result.model->forward(batch)));
}

TEST_CASE("a cross network of matrices refuses an embedding without a basis") {
  const RankPlan plan = {{"embedding", {.ranks = {1, 1, 1}, .basis = Basis::kNone}}};
  CHECK(message_of<std::invalid_argument>([&] { make_model("dcn", R"({"cross": "matrix"})", plain_schema(), plan); }) ==
        "DCNOptions.cross must be vector for an embedding with the basis none, got matrix");
}

}  // namespace
}  // namespace afm::models
