// What Scorer::open refuses, and that no change of a file does worse than being refused.

#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "libafm/core/error.h"
#include "libafm/serve/scorer.h"
#include "tests/core/temporary_folder.h"
#include "tests/serve/model_files.h"

namespace afm::serve {
namespace {

using afm::testing::message_of;
using afm::testing::TemporaryFolder;
using Catch::Matchers::ContainsSubstring;
using testing::ModelParts;

std::string refusal_of(const ModelParts& parts) {
  const TemporaryFolder folder;
  parts.write(folder / "model");
  const std::string message = message_of<FormatError>([&] { Scorer::open(folder / "model"); });
  CHECK_THAT(message, ContainsSubstring((folder / "model").string()));
  return message;
}

std::string deepfm_refusal(const std::function<void(ModelParts&)>& change) {
  ModelParts parts = testing::deepfm_parts();
  change(parts);
  return refusal_of(parts);
}

std::string dcn_refusal(const std::function<void(ModelParts&)>& change) {
  ModelParts parts = testing::folded_dcn_parts();
  change(parts);
  return refusal_of(parts);
}

void set_layers(ModelParts& parts, const std::string& layers) {
  parts.metadata["ranks"] = R"({"kind": "afm-rank-plan", "version": 1, "layers": )" + layers + "}";
}

TEST_CASE("files that are no model files are refused") {
  CHECK_THAT(deepfm_refusal([](auto& parts) { parts.metadata["kind"] = "afm-statistics"; }),
             ContainsSubstring("its kind must be 'afm-model', got 'afm-statistics'"));
  CHECK_THAT(deepfm_refusal([](auto& parts) { parts.metadata.erase("kind"); }),
             ContainsSubstring("has no metadata 'kind'"));
  CHECK_THAT(deepfm_refusal([](auto& parts) { parts.metadata["version"] = "99"; }),
             ContainsSubstring("its version 99 was written by a newer libafm"));
  CHECK_THAT(deepfm_refusal([](auto& parts) { parts.metadata["version"] = "1a"; }),
             ContainsSubstring("its version must be a number from 1, got '1a'"));
  CHECK_THAT(deepfm_refusal([](auto& parts) { parts.metadata["model"] = "afm"; }),
             ContainsSubstring("there is no model 'afm'; the models are: deepfm, dcn, wide_deep"));
  const TemporaryFolder folder;
  CHECK_THAT(message_of<IoError>([&] { Scorer::open(folder / "absent"); }), ContainsSubstring("absent"));
}

TEST_CASE("metadata that breaks a rule is refused") {
  CHECK_THAT(deepfm_refusal([](auto& parts) { parts.metadata["options"] = R"({"embedding_dims": 4})"; }),
             ContainsSubstring("options has no field 'embedding_dims'"));
  CHECK_THAT(deepfm_refusal([](auto& parts) { parts.metadata["options"] = R"({"embedding_dim": 0})"; }),
             ContainsSubstring("its option embedding_dim must be in [1, "));
  CHECK_THAT(deepfm_refusal([](auto& parts) { parts.metadata["options"] = "{"; }),
             ContainsSubstring("its options are not JSON"));
  CHECK_THAT(deepfm_refusal([](auto& parts) { parts.metadata["schema"] = "[]"; }),
             ContainsSubstring("a schema must be an object"));
  CHECK_THAT(deepfm_refusal([](auto& parts) {
               parts.metadata["schema"] = R"({"label": "y", "fields": [{"name": "n", "kind": "numeric"}]})";
             }),
             ContainsSubstring("its schema has no categorical or multi-valued field"));
  CHECK_THAT(deepfm_refusal([](auto& parts) { parts.metadata["ranks"] = "7"; }), ContainsSubstring("not a rank plan"));
}

TEST_CASE("plans that do not fit the model are refused") {
  const auto refusal = [](const std::string& layers) {
    return deepfm_refusal([&](auto& parts) { set_layers(parts, layers); });
  };
  CHECK_THAT(refusal(R"({"mlp.layers.7": {"rank": 1}})"), ContainsSubstring("its model has no layer 'mlp.layers.7'"));
  CHECK_THAT(refusal(R"({"mlp.layers.0": {"rank": 7}})"),
             ContainsSubstring("layer 'mlp.layers.0' must have a rank in [0, 6], got 7"));
  CHECK_THAT(refusal(R"({"mlp.layers.0": {"ranks": [1, 1], "basis": "field"}})"),
             ContainsSubstring("layer 'mlp.layers.0' is a linear layer"));
  CHECK_THAT(refusal(R"({"embedding": {"ranks": [1]}})"), ContainsSubstring("must have one rank per field"));
  CHECK_THAT(refusal(R"({"embedding": {"ranks": [1, 2, 5]}})"), ContainsSubstring("must have ranks in [0, 4], got 5"));
  CHECK_THAT(refusal(R"({"embedding": {"ranks": [1, 2, 3], "basis": "shared", "joint": true}})"),
             ContainsSubstring("can be joint only with wide weights and without a shared basis"));
  CHECK_THAT(refusal(R"({"embedding": {"ranks": [1, 2, 3], "tiers": [[{"rows": 3, "rank": 1}], [], []]}})"),
             ContainsSubstring("must have tiers that cover all ids of their field"));
  CHECK_THAT(refusal(R"({"embedding": {"ranks": [1, 2, 3], "tiers": [[{"rows": 7, "rank": 2}], [], []]}})"),
             ContainsSubstring("must have tiers that start with the rank of their field"));
}

TEST_CASE("tensors that do not fit the model are refused") {
  CHECK_THAT(deepfm_refusal([](auto& parts) { parts.tensors.erase("mlp.layers.1.bias"); }),
             ContainsSubstring("has no tensor 'mlp.layers.1.bias'"));
  CHECK_THAT(deepfm_refusal([](auto& parts) { parts.tensors["extra"] = testing::floats_of({1}, {0}); }),
             ContainsSubstring("its model has no tensors named extra"));
  CHECK_THAT(deepfm_refusal([](auto& parts) {
               parts.tensors["bias"] = testing::floats_of({1, 1}, {0});
             }),
             ContainsSubstring("tensor 'bias' must have the shape [1], got [1, 1]"));
  CHECK_THAT(
      deepfm_refusal([](auto& parts) { parts.tensors["bias"] = testing::tensor_of<int32_t>(DType::kI32, {1}, {0}); }),
      ContainsSubstring("tensor 'bias' must be of floats, got I32"));
  CHECK_THAT(dcn_refusal([](auto& parts) {
               auto& scale = parts.tensors["embedding.latent.scale"];
               scale.shape[0] -= 1;
               scale.bytes.resize(scale.bytes.size() - 2);
             }),
             ContainsSubstring("tensor 'embedding.latent.scale' must have the shape [11], got [10]"));
  CHECK_THAT(dcn_refusal([](auto& parts) { parts.tensors["embedding.latent.codes"].dtype = DType::kU8; }),
             ContainsSubstring("tensor 'embedding.latent.codes' must be I8, got U8"));
  CHECK_THAT(dcn_refusal([](auto& parts) { parts.tensors["mlp.layers.0.weight.scale"].bytes[1] = std::byte{0xbf}; }),
             ContainsSubstring("tensor 'mlp.layers.0.weight.scale' must have scales of at least 0"));
}

TEST_CASE("a changed byte is refused by the checksum") {
  const TemporaryFolder folder;
  testing::deepfm_parts().write(folder / "model");
  std::string bytes = afm::testing::read_bytes(folder / "model");
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  afm::testing::write_bytes(folder / "model", bytes);
  CHECK_THAT(message_of<FormatError>([&] { Scorer::open(folder / "model"); }), ContainsSubstring("is damaged"));
  CHECK_NOTHROW(Scorer::open(folder / "model", {.verify = false}));
}

TEST_CASE("golden rows are scored when a file is opened") {
  ModelParts parts = testing::deepfm_parts();
  const auto rows = testing::random_rows(4);
  const auto exact = testing::deepfm_logits(parts, rows);
  std::vector<float> logits(exact.begin(), exact.end());
  testing::add_golden_rows(parts, rows, logits);
  const TemporaryFolder folder;
  parts.write(folder / "model");
  CHECK(Scorer::open(folder / "model").golden_rows() == 4);

  logits[2] += 1e-2F;
  testing::add_golden_rows(parts, rows, logits);
  CHECK_THAT(refusal_of(parts), ContainsSubstring("golden row 2 must have the logit "));
  logits[2] = std::numeric_limits<float>::quiet_NaN();
  testing::add_golden_rows(parts, rows, logits);
  CHECK_THAT(refusal_of(parts), ContainsSubstring("golden row 2 must have the logit nan"));
}

TEST_CASE("golden rows that do not fit are refused") {
  const auto refusal = [](const std::function<void(ModelParts&)>& change) {
    return deepfm_refusal([&](ModelParts& parts) {
      const auto exact = testing::deepfm_logits(parts, testing::random_rows(4));
      testing::add_golden_rows(parts, testing::random_rows(4), {exact.begin(), exact.end()});
      change(parts);
    });
  };
  CHECK_THAT(refusal([](auto& parts) { parts.tensors["golden.ids"].bytes[1] = std::byte{1}; }),
             ContainsSubstring("its golden rows do not fit its model: field 'user' has id "));
  CHECK_THAT(refusal([](auto& parts) {
               parts.tensors["golden.ids"].shape = {5, 4};
             }),
             ContainsSubstring("'golden.ids' has another type or shape"));
  CHECK_THAT(refusal([](auto& parts) { parts.tensors.erase("golden.dense"); }),
             ContainsSubstring("has no tensor 'golden.dense'"));
}

TEST_CASE("instructions that the processor lacks are refused") {
  if (best_simd() == Simd::kAvx512) SKIP("this processor has all of them");
  const TemporaryFolder folder;
  testing::deepfm_parts().write(folder / "model");
  CHECK_THROWS_AS(Scorer::open(folder / "model", {.simd = Simd::kAvx512}), std::invalid_argument);
}

// Opens and scores, or throws what libafm throws.
bool opens(const std::filesystem::path& path) {
  try {
    const Scorer scorer = Scorer::open(path, {.verify = false});
    if (scorer.slot_count() > 64) return true;
    const std::vector<int32_t> ids(static_cast<std::size_t>(2 * scorer.slot_count()), 0);
    const std::vector<float> dense(static_cast<std::size_t>(2 * scorer.dense_count()), 0.5F);
    float logits[2] = {};
    scorer.score(ids.data(), dense.data(), 2, logits);
    return true;
  } catch (const Error&) {
    return false;
  }
}

TEST_CASE("a file with changed bytes is refused or opens, never worse") {
  const TemporaryFolder folder;
  std::mt19937 random(3);
  for (const bool folded : {false, true}) {
    (folded ? testing::folded_dcn_parts() : testing::deepfm_parts()).write(folder / "model");
    const std::string bytes = afm::testing::read_bytes(folder / "model");
    int refused = 0, opened = 0;
    for (int round = 0; round < 400; ++round) {
      std::string changed = bytes;
      for (int change = 0; change < 1 + round % 3; ++change) {
        // Most of the file is its header, so every other round stays behind it.
        const std::size_t begin = round % 2 == 0 ? 0 : changed.size() - 64;
        changed[begin + random() % (changed.size() - begin)] = static_cast<char>(random());
      }
      if (round % 10 == 0) changed.resize(random() % changed.size());
      afm::testing::write_bytes(folder / "changed", changed);
      opens(folder / "changed") ? ++opened : ++refused;
    }
    CHECK(refused > 50);
    CHECK(opened > 50);
  }
}

}  // namespace
}  // namespace afm::serve
