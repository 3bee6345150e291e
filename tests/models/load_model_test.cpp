#include <array>
#include <string>

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/core/error.h"
#include "libafm/nn/layer.h"
#include "libafm/nn/model_file.h"
#include "models/zoo.h"
#include "tests/core/temporary_folder.h"
#include "tests/models/clicks.h"

namespace afm::models {

using testing::click_batch;
using testing::click_schema;
using testing::message_of;
using testing::TemporaryFolder;

const RankPlan kPlan = {{"embedding", {.ranks = {3, 1}}}, {"mlp.layers.0", {.ranks = {2}}}};

const RankPlan kIntegers = {{"embedding", {.ranks = {3, 1}, .bits = Bits::kInt4}},
                            {"mlp.layers.0", {.ranks = {3}, .bits = Bits::kInt8, .scale = ScaleBy::kColumn}}};

std::shared_ptr<Model> used_model(const std::string& name, const RankPlan& plan) {
  auto model = make_model(name, R"({"embedding_dim": 4, "hidden": [8], "init_std": 0.3})", click_schema(), plan);
  model->forward(click_batch(64));  // batch norm statistics
  return model;
}

TEST_CASE("a loaded model is the saved one, dense or compressed, in either precision") {
  const auto name = GENERATE(as<std::string>{}, "deepfm", "dcn", "wide_deep");
  const RankPlan plan = std::array{RankPlan{}, kPlan, kIntegers}[GENERATE(0U, 1U, 2U)];
  const auto dtype = GENERATE(torch::kFloat32, torch::kFloat64);
  const TemporaryFolder folder;
  const auto model = used_model(name, plan);
  model->to(dtype);
  save_model(*model, folder / "model.safetensors");
  const auto loaded = load_model(folder / "model.safetensors");
  CHECK(loaded->kind() == name);
  CHECK(loaded->schema() == model->schema());
  CHECK(loaded->options_json() == model->options_json());
  CHECK((nn::rank_plan_of(*loaded) == plan));
  CHECK(loaded->dtype() == dtype);
  CHECK_FALSE(loaded->is_training());
  model->eval();
  const Batch batch = click_batch(40);
  CHECK(torch::equal(loaded->forward(batch), model->forward(batch)));
}

TEST_CASE("a model that was saved, loaded and saved again is the same file") {
  for (const RankPlan& plan : {kPlan, kIntegers}) {
    const TemporaryFolder folder;
    save_model(*used_model("deepfm", plan), folder / "a");
    save_model(*load_model(folder / "a"), folder / "b");
    CHECK(testing::read_bytes(folder / "a") == testing::read_bytes(folder / "b"));
  }
}

TEST_CASE("damaged integers are refused with the file and the parameter") {
  const TemporaryFolder folder;
  const auto path = folder / "model.safetensors";
  save_model(*used_model("deepfm", kIntegers), path);
  const auto file = SafetensorsFile::open(path);
  TensorMap tensors = read_tensors(file);
  at::Tensor& codes = tensors.at("mlp.layers.0.down.codes");
  codes = codes.narrow(0, 0, codes.size(0) - 1);
  save_tensors(path, file.metadata(), tensors);
  CHECK(message_of<FormatError>([&] {
          load_model(path);
        }).starts_with("'" + path.string() + "' does not hold the integers of 'mlp.layers.0.down': its codes must be"));
}

// The sentence for a model file whose metadata was changed in one key, after the file's name.
std::string refusal_of(const std::string& key, const std::string& value) {
  const TemporaryFolder folder;
  const auto path = folder / "model.safetensors";
  save_model(*used_model("deepfm", {}), path);
  const auto file = SafetensorsFile::open(path);
  Metadata metadata = file.metadata();
  metadata[key] = value;
  save_tensors(path, metadata, read_tensors(file));
  std::string message = message_of<FormatError>([&] { load_model(path); });
  const auto name = message.find(path.string());
  return name == std::string::npos ? message : message.replace(name, path.string().size(), "FILE");
}

TEST_CASE("a file whose parts contradict each other is refused by name") {
  CHECK(refusal_of("model", "depfm") ==
        "'FILE' describes a model that cannot be built: there is no model 'depfm'; the models are: deepfm, dcn, "
        "wide_deep");
  CHECK(refusal_of("options", R"({"dropout": 2})") ==
        "'FILE' describes a model that cannot be built: DeepFMOptions.dropout must be in [0, 1), got 2");
  CHECK(refusal_of("ranks", plan_to_json({{"mlp.layers.7", {.ranks = {1}}}}))
            .starts_with("'FILE' describes a model that cannot be built: the rank plan names 'mlp.layers.7'"));
  CHECK(refusal_of("ranks", plan_to_json({{"mlp.layers.0", {.ranks = {2}}}})) ==
        "the tensors of 'FILE' do not fit the model; missing: mlp.layers.0.down, mlp.layers.0.down_bias, "
        "mlp.layers.0.up, mlp.layers.0.up_bias; surplus: mlp.layers.0.bias, mlp.layers.0.weight");
  CHECK(refusal_of("options", R"({"embedding_dim": 4, "hidden": [9], "init_std": 0.3})")
            .starts_with(
                "the tensors of 'FILE' do not fit the model; misshapen: mlp.head.weight (expected [1, 9], got "));
  CHECK(refusal_of("model", "deepfm").empty());
}

TEST_CASE("a file that describes far more than it holds is refused before memory is taken for it") {
  CHECK(refusal_of("options", R"({"embedding_dim": 4, "hidden": [8, 1000000000], "init_std": 0.3})")
            .starts_with("'FILE' describes a model that cannot be built: its options have the width 1000000000, its "
                         "tensors only "));
  CHECK(refusal_of("options", R"({"embedding_dim": 9223372036854775807, "hidden": [8]})")
            .find("width 9223372036854775807") != std::string::npos);
  Schema schema = click_schema();
  for (FieldSpec& field : schema.fields) field.cardinality = field.has_ids() ? 2147483647 : 0;
  CHECK(refusal_of("schema", schema_to_json(schema)).starts_with("'FILE' describes a model that cannot be built"));
}

}  // namespace afm::models
