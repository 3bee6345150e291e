#include <cstring>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <nlohmann/json.hpp>

#include "libafm/core/error.h"
#include "libafm/core/hash.h"
#include "libafm/core/tensors.h"
#include "libafm/core/version.h"
#include "libafm/data/encoder.h"
#include "tests/core/temporary_folder.h"

namespace afm {
namespace {

using namespace std::string_literals;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::EndsWith;
using testing::message_of;
using testing::read_bytes;
using testing::TemporaryFolder;
using testing::write_bytes;

Encoder built(const std::vector<std::string>& values) {
  EncoderBuilder builder({.fields = {{.name = "user"},
                                     {.name = "hashed", .hash_buckets = 9},
                                     {.name = "price", .kind = FieldKind::kNumeric},
                                     {.name = "żółw.values", .kind = FieldKind::kMulti, .max_values = 2}}});
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::vector<std::string_view> value = {values[i]};
    const std::vector<int64_t> count = {static_cast<int64_t>(values.size() - i)};
    builder.add_counts(0, value, count);
    builder.add_counts(3, value, count);
  }
  return builder.build();
}

bool same(const Encoder& a, const Encoder& b) {
  bool equal = a.schema() == b.schema();
  for (std::size_t i = 0; i < a.vocabularies().size(); ++i) {
    equal &= a.vocabularies()[i].values == b.vocabularies()[i].values;
    equal &= a.vocabularies()[i].counts == b.vocabularies()[i].counts;
  }
  return equal;
}

// The file with a byte before all tensors, as a program that does not align them may write it.
void shift_by_a_byte(const std::filesystem::path& path) {
  const std::string file = read_bytes(path);
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  auto header = nlohmann::json::parse(file.substr(sizeof length, length));
  const std::string data = "x" + file.substr(sizeof length + length);
  for (auto& [name, entry] : header.items()) {
    if (!entry.contains("data_offsets")) continue;
    for (auto& offset : entry["data_offsets"]) offset = offset.get<int64_t>() + 1;
  }
  header["first"] = {{"dtype", "U8"}, {"shape", {1}}, {"data_offsets", {0, 1}}};
  header["__metadata__"]["afm.xxh3"] = hex_hash_of(data);
  header["__metadata__"].erase("afm.xxh3.header");
  const std::string text = header.dump();
  length = text.size();
  write_bytes(path, std::string(reinterpret_cast<const char*>(&length), sizeof length) + text + data);
}

TEST_CASE("a vocabulary whose numbers are not aligned opens") {
  const TemporaryFolder folder;
  const auto encoder = built({"a", "b"});
  encoder.save(folder / "v");
  shift_by_a_byte(folder / "v");
  CHECK(same(Encoder::open(folder / "v", encoder.schema()), encoder));
}

TEST_CASE("a vocabulary of any bytes is opened as it was saved") {
  const TemporaryFolder folder;
  const std::vector<std::string> values = {"\0"s,
                                           "a\0b"s,
                                           "a",
                                           "a\0"s,
                                           "zażółć 用户",
                                           "\xff\xfe",
                                           " ",
                                           "|",
                                           "\n",
                                           std::string(100'000, 'x'),
                                           std::string(100'000, 'x') + "y"};
  const auto encoder = built(values);
  REQUIRE(encoder.vocabularies()[0].values == values);
  encoder.save(folder / "v");
  const auto opened = Encoder::open(folder / "v", encoder.schema());
  CHECK(same(opened, encoder));
  for (std::size_t i = 0; i < values.size(); ++i) CHECK(opened.id_of(0, values[i]) == static_cast<int32_t>(i + 1));
  CHECK(opened.id_of(1, "a\0b"s) == encoder.id_of(1, "a\0b"s));
  CHECK_FALSE(same(opened, built({"a"})));
}

TEST_CASE("empty vocabularies are saved too") {
  const TemporaryFolder folder;
  const auto encoder = built({});
  encoder.save(folder / "v");
  CHECK(same(Encoder::open(folder / "v", encoder.schema()), encoder));
}

TEST_CASE("the vocabulary of another schema is refused") {
  const TemporaryFolder folder;
  built({"a", "b"}).save(folder / "v");
  CHECK(message_of<DataError>([&] {
          Encoder::open(folder / "v", built({"a", "c"}).schema());
        }) == (folder / "v").string() + ": belongs to another schema");
}

TEST_CASE("a file that is no vocabulary, or of another version, is refused") {
  const TemporaryFolder folder;
  const auto schema = built({"a"}).schema();
  const auto refusal = [&](const Metadata& metadata) {
    save_tensors(folder / "v", metadata, {});
    return message_of<FormatError>([&] { Encoder::open(folder / "v", schema); });
  };
  CHECK_THAT(refusal({{"kind", "afm-model"}}), EndsWith("/v: is not a vocabulary of libafm"));
  CHECK_THAT(refusal({}), EndsWith("has no metadata 'kind'"));
  const std::string newer = std::to_string(kFormatVersion + 1);
  CHECK_THAT(refusal({{"kind", "afm-vocabulary"}, {"version", newer}}),
             ContainsSubstring(": format version is " + newer + ", this libafm reads "));
  CHECK_THAT(
      refusal(
          {{"kind", "afm-vocabulary"}, {"version", std::to_string(kFormatVersion)}, {"schema", schema.fingerprint()}}),
      EndsWith("has no tensor 'user.values'"));
  write_bytes(folder / "v", "user,item\n");
  CHECK_THROWS_AS(Encoder::open(folder / "v", schema), FormatError);
  CHECK_THROWS_AS(Encoder::open(folder / "none", schema), IoError);
}

TEST_CASE("value ends that do not rise within the text are refused") {
  const TemporaryFolder folder;
  const auto encoder = built({"a", "b"});
  encoder.save(folder / "v");
  const auto file = SafetensorsFile::open(folder / "v");
  const auto tensors = read_tensors(file);
  const auto refusal = [&](const std::string& name, const at::Tensor& tensor) {
    auto changed = tensors;
    changed[name] = tensor;
    auto metadata = file.metadata();
    save_tensors(folder / "w", metadata, changed);
    return message_of<Error>([&] { Encoder::open(folder / "w", encoder.schema()); });
  };
  const auto list = [](std::vector<int64_t> values) { return at::tensor(values, at::kLong); };
  CHECK(refusal("user.ends", list({1, 2})).empty());
  CHECK_THAT(refusal("user.ends", list({1, 3})), EndsWith("user.ends must rise up to 2, got 3"));
  CHECK_THAT(refusal("user.ends", list({2, 1})), EndsWith("user.ends must rise up to 2, got 1"));
  CHECK_THAT(refusal("user.ends", list({-1, 1})), EndsWith("user.ends must rise up to 2, got -1"));
  CHECK_THAT(refusal("user.ends", list({1})), EndsWith("field 'user': 1 values have 2 counts"));
  CHECK_THAT(refusal("user.ends", at::tensor({1, 2}, at::kInt)), EndsWith("user.ends must be a list of I64"));
  CHECK_THAT(refusal("user.values", at::tensor({98, 97}, at::kByte)),
             EndsWith("the vocabulary is not the one that the schema was counted with"));
}

TEST_CASE("a vocabulary with any one bit flipped is refused or the same") {
  const TemporaryFolder folder;
  const auto encoder = built({"a", "bc"});
  encoder.save(folder / "v");
  const auto bytes = read_bytes(folder / "v");
  int refused = 0;
  for (std::size_t place = 0; place < bytes.size(); ++place) {
    auto damaged = bytes;
    damaged[place] = static_cast<char>(damaged[place] ^ (1 << place % 8));
    write_bytes(folder / "w", damaged);
    try {
      const auto opened = Encoder::open(folder / "w", encoder.schema());
      INFO("byte " << place);
      CHECK(same(opened, encoder));
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(refused > static_cast<int>(bytes.size()) / 2);
}

}  // namespace
}  // namespace afm
