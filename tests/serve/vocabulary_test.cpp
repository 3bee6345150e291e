#include "libafm/serve/vocabulary.h"

#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include "libafm/core/error.h"
#include "libafm/serve/pack.h"
#include "libafm/serve/scorer.h"
#include "tests/core/temporary_folder.h"
#include "tests/serve/vocabulary_files.h"

namespace afm::serve {
namespace {

using afm::testing::message_of;
using afm::testing::TemporaryFolder;
using testing::ModelParts;

const FieldSpec kUser{.name = "user", .cardinality = 7};

// The parts of a packed file that concern one field.
ModelParts packed_parts(const std::vector<std::string>& values) {
  const FieldSpec field{.name = "user", .cardinality = static_cast<int64_t>(values.size()) + 1};
  ModelParts stored = testing::vocabulary_parts({.fields = {field}}, {{"user", values}});
  const auto& bytes = stored.tensors.at("user.values").bytes;
  std::vector<int64_t> ends;
  for (const std::string& value : values) {
    ends.push_back((ends.empty() ? 0 : ends.back()) + static_cast<int64_t>(value.size()));
  }
  const auto index = vocabulary_index({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, ends);
  ModelParts parts;
  parts.tensors["vocabulary.user.values"] = stored.tensors.at("user.values");
  parts.tensors["vocabulary.user.ends"] = stored.tensors.at("user.ends");
  parts.tensors["vocabulary.user.index"] = testing::tensor_of(DType::kI32, {static_cast<int64_t>(index.size())}, index);
  return parts;
}

TEST_CASE("every value of a vocabulary has its id, and no other value has one") {
  std::mt19937 random(1);
  for (const std::size_t count : {0U, 1U, 2U, 3U, 47U, 48U, 3000U}) {
    std::vector<std::string> values;
    for (std::size_t i = 0; i < count; ++i) values.push_back(std::string(random() % 5, 'x') + std::to_string(i));
    const TemporaryFolder folder;
    packed_parts(values).write(folder / "v");
    const FieldSpec field{.name = "user", .cardinality = static_cast<int64_t>(count) + 1};
    const auto file = SafetensorsFile::open(folder / "v");
    const StoredVocabulary vocabulary(file, field);
    for (std::size_t i = 0; i < count; ++i) CHECK(vocabulary.id_of(values[i]) == static_cast<int32_t>(i + 1));
    for (const char* other : {"", "x", "-1", "3000", "xxxxxxx1"}) CHECK(vocabulary.id_of(other) == 0);
  }
}

TEST_CASE("a hashed field needs no values") {
  const TemporaryFolder folder;
  ModelParts().write(folder / "v");
  const auto file = SafetensorsFile::open(folder / "v");
  const StoredVocabulary hashed(file, FieldSpec{.name = "h", .cardinality = 10, .hash_buckets = 9});
  CHECK(hashed.id_of("") == 0);
  for (int i = 0; i < 100; ++i) {
    const int32_t id = hashed.id_of(std::to_string(i));
    CHECK((id >= 1 && id <= 9));
  }
}

// The sentence for a vocabulary that `change` spoilt, after the file's name; else it must answer within its range.
std::string refusal_of(const std::function<void(ModelParts&)>& change) {
  const TemporaryFolder folder;
  ModelParts parts = packed_parts({"u1", "u2", "u3", "u4", "u5", "u6"});
  change(parts);
  parts.write(folder / "v");
  const auto file = SafetensorsFile::open(folder / "v");
  const std::string message = message_of<FormatError>([&] {
    const StoredVocabulary vocabulary(file, kUser);
    for (int i = 0; i < 1000; ++i) {
      const int32_t id = vocabulary.id_of("u" + std::to_string(i));
      CHECK((id >= 0 && id < kUser.cardinality));
    }
  });
  const std::string name = "'" + (folder / "v").string() + "'";
  return message.starts_with(name) ? message.substr(name.size()) : message;
}

TEST_CASE("a vocabulary that does not fit its field is refused, and a damaged one never answers beyond it") {
  CHECK(refusal_of([](ModelParts&) {}).empty());
  CHECK(refusal_of([](ModelParts& parts) { parts.tensors.erase("vocabulary.user.index"); }) ==
        " has no tensor 'vocabulary.user.index'");
  CHECK(refusal_of([](ModelParts& parts) {
          parts.tensors["vocabulary.user.ends"] = testing::tensor_of(DType::kI64, {1}, std::vector<int64_t>{2});
        }) == ": field 'user' has cardinality 7, its vocabulary has 1 values");
  CHECK(refusal_of([](ModelParts& parts) {
          parts.tensors["vocabulary.user.index"] = testing::tensor_of(DType::kI32, {3}, std::vector<int32_t>(3));
        }) == ": tensor 'vocabulary.user.index' must have a power of two of places, got 3");
  CHECK(refusal_of([](ModelParts& parts) {
          parts.tensors["vocabulary.user.index"] = testing::tensor_of(DType::kI64, {2}, std::vector<int64_t>(2));
        }) == ": tensor 'vocabulary.user.index' must be a list of I32");
  for (const int32_t id : {-1, 7, 1 << 30, 6}) {  // a full index too: nothing ends the search but its size
    CHECK(refusal_of([&](ModelParts& parts) {
            parts.tensors["vocabulary.user.index"] = testing::tensor_of(DType::kI32, {8}, std::vector<int32_t>(8, id));
          }).empty());
  }
  for (const int64_t end : {int64_t{-5}, int64_t{1} << 62, int64_t{13}}) {
    CHECK(refusal_of([&](ModelParts& parts) {
            parts.tensors["vocabulary.user.ends"] = testing::tensor_of(DType::kI64, {6}, std::vector<int64_t>(6, end));
          }).empty());
  }
}

// The sentence of a pack() whose vocabulary file `change` spoilt, after the file's name.
template <typename Exception>
std::string pack_refusal(const std::function<void(ModelParts&)>& change) {
  const TemporaryFolder folder;
  testing::deepfm_parts().write(folder / "model");
  ModelParts parts = testing::vocabulary_parts(testing::click_schema(), testing::click_values());
  change(parts);
  testing::write_vocabulary(folder / "clicks", parts);
  const std::string message =
      message_of<Exception>([&] { pack(folder / "model", folder / "clicks", folder / "packed"); });
  CHECK((message.empty() || !std::filesystem::exists(folder / "packed")));
  const std::string name = "'" + (folder / "clicks" / "vocabulary.safetensors").string() + "'";
  return message.starts_with(name) ? message.substr(name.size()) : message;
}

TEST_CASE("packing refuses a vocabulary of another kind, schema or size") {
  CHECK(pack_refusal<Error>([](ModelParts&) {}).empty());
  CHECK(pack_refusal<FormatError>([](ModelParts& parts) { parts.metadata["kind"] = "afm-model"; }) ==
        " is not a vocabulary of libafm");
  CHECK(pack_refusal<FormatError>([](ModelParts& parts) { parts.metadata["version"] = "2"; }) ==
        ": format version is 2, this libafm reads 1");
  CHECK(pack_refusal<DataError>([](ModelParts& parts) { parts.metadata["schema"] = "0"; }) ==
        " belongs to another schema than the model");
  CHECK(pack_refusal<FormatError>([](ModelParts& parts) {
          parts.tensors["user.ends"] = testing::tensor_of(DType::kI64, {6}, std::vector<int64_t>{1, 0, 1, 1, 1, 1});
        }) == ": the ends of field 'user' must rise up to 14, got 0");
  CHECK(pack_refusal<DataError>([](ModelParts& parts) {
          parts.tensors["user.ends"] = testing::tensor_of(DType::kI64, {1}, std::vector<int64_t>{2});
        }) == ": field 'user' has cardinality 7, its vocabulary has 1 values");
  CHECK(pack_refusal<FormatError>([](ModelParts& parts) {
          parts.tensors["user.ends"] = testing::tensor_of(DType::kI32, {6}, std::vector<int32_t>(6));
        }) == ": the vocabulary of field 'user' must be lists of bytes and int64 ends");
}

}  // namespace
}  // namespace afm::serve
