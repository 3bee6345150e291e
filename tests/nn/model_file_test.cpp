#include "libafm/nn/model_file.h"

#include <string>

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>

#include "libafm/core/error.h"
#include "tests/core/temporary_folder.h"
#include "tests/nn/tiny_ranker.h"

namespace afm {

using testing::message_of;
using testing::read_bytes;
using testing::TemporaryFolder;
using testing::tiny_plan;
using testing::tiny_schema;
using testing::TinyRanker;
using testing::write_bytes;

Metadata good_metadata() {
  return {{"kind", "afm-model"},
          {"version", "1"},
          {"model", "tiny"},
          {"options", "{}"},
          {"schema", schema_to_json(tiny_schema())},
          {"ranks", plan_to_json({})}};
}

// The sentence for a file with good metadata but for one key, after the file's name.
std::string refusal_of(const std::string& key, const std::string& value) {
  const TemporaryFolder folder;
  const auto path = folder / "model.safetensors";
  Metadata metadata = good_metadata();
  metadata[key] = value;
  save_tensors(path, metadata, {});
  const std::string message = message_of<FormatError>([&] { read_model_file(path); });
  const std::string name = "'" + path.string() + "' ";
  return message.starts_with(name) ? message.substr(name.size()) : message;
}

TEST_CASE("a model file holds kind, options, schema, ranks and every tensor") {
  const RankPlan every_form = {{"embedding",
                                {.ranks = {2, 1},
                                 .basis = Basis::kNone,
                                 .joint = true,
                                 .tiers = {{{.rows = 3, .rank = 2}, {.rows = 7, .rank = 1, .shared = true}}, {}}}}};
  for (const auto& plan : {RankPlan{}, tiny_plan(), every_form}) {
    const TemporaryFolder folder;
    const TinyRanker ranker(plan);
    save_model(ranker, folder / "model.safetensors");
    const ModelFile file = read_model_file(folder / "model.safetensors");
    CHECK(file.model == "tiny");
    CHECK(file.options_json == R"({"width": 6})");
    CHECK(file.schema == tiny_schema());
    CHECK((file.plan == plan));
    const TensorMap state = state_of(ranker);
    REQUIRE(file.tensors.size() == state.size());
    for (const auto& [name, tensor] : state) {
      CHECK(file.tensors.at(name).scalar_type() == tensor.scalar_type());
      CHECK(torch::equal(file.tensors.at(name), tensor));
    }
  }
}

TEST_CASE("notes travel through files and copies, and an older file has none") {
  const TemporaryFolder folder;
  TinyRanker ranker;
  ranker.notes = {{"train", R"({"seed": 1})"}, {"author", "Zo\xc3\xab"}};
  save_model(ranker, folder / "model.safetensors");
  CHECK((read_model_file(folder / "model.safetensors").notes == ranker.notes));
  CHECK((copy_of(ranker)->notes == ranker.notes));
  save_tensors(folder / "older.safetensors", good_metadata(), {});
  CHECK(read_model_file(folder / "older.safetensors").notes.empty());
}

TEST_CASE("state goes into the module's own tensors, whatever the dtype") {
  const TinyRanker source(tiny_plan());
  TinyRanker target(tiny_plan());
  target.to(torch::kFloat64);
  const at::Tensor kept = target.head->up_bias;
  load_state(target, state_of(source), "the source");
  CHECK(target.head->up_bias.is_same(kept));
  for (const auto& [name, tensor] : state_of(target)) {
    CHECK(torch::equal(tensor.to(torch::kFloat32), state_of(source).at(name).to(torch::kFloat32)));
  }
}

TEST_CASE("state that does not fit is refused with every name, and changes nothing") {
  TinyRanker ranker;
  TensorMap state = state_of(ranker);
  for (auto& [name, tensor] : state) tensor = torch::zeros_like(tensor);
  state.erase("norm.running_mean");
  state.erase("head.bias");
  state["head.down"] = torch::zeros({1});
  state["hidden.weight"] = torch::zeros({6, 7});
  const auto before = ranker.embedding->weight.detach().clone();
  CHECK(
      message_of<FormatError>([&] { load_state(ranker, state, "'x.safetensors'"); }) ==
      "the tensors of 'x.safetensors' do not fit the model; missing: head.bias, norm.running_mean; surplus: head.down; "
      "misshapen: hidden.weight (expected [6, 8], got [6, 7])");
  CHECK(torch::equal(ranker.embedding->weight, before));
}

TEST_CASE("a file that is no model of this version is refused by name") {
  CHECK(refusal_of("kind", "afm-statistics") == "is no model file: its kind must be 'afm-model', got 'afm-statistics'");
  CHECK(refusal_of("version", "2") == "has version 2, written by a newer libafm; this one reads up to 1; upgrade");
  CHECK(refusal_of("version", "1x") == "is no model file: its version must be a number from 1, got '1x'");
  CHECK(refusal_of("version", "0") == "is no model file: its version must be a number from 1, got '0'");
  CHECK(refusal_of("ranks", "[]") == "has a bad 'ranks': not a rank plan: it must be a JSON object, got []");
  CHECK(refusal_of("schema", "[]").starts_with("has a bad 'schema': "));
  CHECK(refusal_of("notes", R"({"a": 1})").starts_with("has a bad 'notes': notes must be an object of texts: "));
  CHECK(refusal_of("model", "tiny").empty());
}

TEST_CASE("a file that lacks metadata, is cut short or altered is refused") {
  const TemporaryFolder folder;
  const auto path = folder / "model.safetensors";
  save_tensors(path, {}, {{"weight", torch::zeros({2})}});
  CHECK(message_of<FormatError>([&] { read_model_file(path); }) ==
        "'" + path.string() + "' is no model file: its kind must be 'afm-model', got ''");

  save_model(TinyRanker(), path);
  const std::string bytes = read_bytes(path);
  write_bytes(path, bytes.substr(0, bytes.size() - 1));
  CHECK_THROWS_AS(read_model_file(path), FormatError);
  std::string altered = bytes;
  altered.back() = static_cast<char>(altered.back() ^ 1);
  write_bytes(path, altered);
  CHECK_THROWS_AS(read_model_file(path), FormatError);
  write_bytes(path, bytes);
  CHECK_NOTHROW(read_model_file(path));
  CHECK_THROWS_AS(read_model_file(folder / "absent.safetensors"), IoError);
}

}  // namespace afm
