#include "libafm/data/schema.h"

#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "libafm/core/error.h"
#include "tests/core/temporary_folder.h"

namespace afm {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;
using testing::message_of;
using testing::TemporaryFolder;
using testing::write_bytes;

using Random = std::mt19937_64;

int64_t integer(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

double finite_number(Random& random) {
  for (;;) {
    const auto number = std::bit_cast<double>(random());
    if (std::isfinite(number)) return number;
  }
}

FieldSpec random_field(Random& random, int64_t number) {
  static const std::vector<std::string> names = {"user", "\"quoted\"", "zażółć", "tab\tand\nline", "", "用户"};
  static const std::vector<std::string> separators = {"|", ", ", "::", "\t", "·"};
  const auto one_of = [&](const auto& list) { return list[integer(random, 0, std::ssize(list) - 1)]; };
  const bool plain = integer(random, 0, 1) == 0;  // many fields leave the defaults alone
  FieldSpec spec{.name = one_of(names) + std::to_string(number), .kind = static_cast<FieldKind>(integer(random, 0, 2))};
  if (plain) return spec;
  spec.cardinality = integer(random, 0, std::numeric_limits<int32_t>::max());
  spec.min_count = integer(random, 1, std::numeric_limits<int64_t>::max());
  spec.hash_buckets = integer(random, 0, std::numeric_limits<int32_t>::max() - 1);
  spec.vocabulary = one_of(std::vector<std::string>{"", "0123456789abcdef"});
  spec.separator = one_of(separators);
  spec.max_values = integer(random, 0, 65536);
  spec.transform = static_cast<Transform>(integer(random, 0, 4));
  spec.fill = one_of(std::vector{0.0, -0.0, finite_number(random)});
  spec.mean = one_of(std::vector{0.0, -0.0, finite_number(random)});
  spec.scale = std::abs(finite_number(random)) + std::numeric_limits<double>::denorm_min();
  return spec;
}

Schema random_schema(Random& random) {
  Schema schema{.label = integer(random, 0, 1) == 0 ? "label" : "clicked?", .fields = {}};
  const auto count = integer(random, 1, 8);
  for (int64_t i = 0; i < count; ++i) schema.fields.push_back(random_field(random, i));
  return schema;
}

// Cardinality, slots and figures are counted.
Schema counted() {
  return {.fields = {{.name = "user", .cardinality = 10, .vocabulary = "ab"},
                     {.name = "hashed", .cardinality = 101, .hash_buckets = 100},
                     {.name = "genres", .kind = FieldKind::kMulti, .cardinality = 5, .max_values = 3},
                     {.name = "price", .kind = FieldKind::kNumeric, .mean = 1.5, .scale = 2.0}}};
}

std::string refusal_of_json(std::string_view json) {
  return message_of<DataError>([&] { schema_from_json(json); });
}

std::string refusal_of_field(std::string_view members) {
  return refusal_of_json("{\"fields\": [{\"name\": \"x\", " + std::string(members) + "}]}");
}

TEST_CASE("random schemas come back from JSON as they were") {
  Random random(1);
  for (int trial = 0; trial < 300; ++trial) {
    const auto schema = random_schema(random);
    const auto text = schema_to_json(schema);
    INFO(text);
    const auto back = schema_from_json(text);
    CHECK(back == schema);
    CHECK(back.fingerprint() == schema.fingerprint());
    CHECK(schema_to_json(back) == text);
  }
}

TEST_CASE("schema JSON holds what differs from the defaults") {
  const Schema schema{.label = "click", .fields = {{.name = "user", .min_count = 2}}};
  CHECK(schema_to_json(schema) == R"({
  "label": "click",
  "fields": [
    {
      "name": "user",
      "kind": "categorical",
      "min_count": 2
    }
  ]
}
)");
}

TEST_CASE("a schema file is read as it was written, and an error names the file") {
  const TemporaryFolder folder;
  write_schema(folder / "schema.json", counted());
  CHECK(read_schema(folder / "schema.json") == counted());
  CHECK(folder.file_count() == 1);
  write_bytes(folder / "bad.json", R"({"fields": []})");
  CHECK(message_of<DataError>([&] { read_schema(folder / "bad.json"); }) ==
        (folder / "bad.json").string() + ": fields must name at least one column");
  CHECK_THAT(message_of<IoError>([&] { read_schema(folder / "none.json"); }),
             ContainsSubstring((folder / "none.json").string()));
}

TEST_CASE("schema JSON of the wrong form is refused") {
  CHECK_THAT(refusal_of_json("{\"fields\": ["), StartsWith("not JSON: "));
  CHECK_THAT(refusal_of_json("{\"label\": \"\xff\"}"), StartsWith("not JSON: "));
  CHECK(refusal_of_json("[]") == "a schema must be an object with \"label\" and \"fields\"");
  CHECK(refusal_of_json(R"({"label": 3})") == R"("label" must be a text, got 3)");
  CHECK(refusal_of_json(R"({"fields": {}})") == R"("fields" must be a list, got {})");
  CHECK(refusal_of_json(R"({"feilds": []})") == "unknown key 'feilds'; keys are: label, fields");
  CHECK(refusal_of_json("{}") == "fields must name at least one column");
  CHECK(refusal_of_json(R"({"label": "", "fields": [{"name": "x"}]})") == "label must name a column");
  CHECK(refusal_of_json(R"({"fields": ["user"]})") == "every field must be an object, got \"user\"");
  CHECK(refusal_of_json(R"({"fields": [{"kind": "multi"}]})") == "every field must have a name");
  CHECK(refusal_of_json(R"({"fields": [{"name": "x"}, {"name": "y"}, {"name": "x"}]})") == "field 'x' is named twice");
  CHECK(refusal_of_json(R"({"label": "x", "fields": [{"name": "x"}]})") == "field 'x' is named twice");
}

TEST_CASE("a field of the wrong form is refused") {
  CHECK(refusal_of_field(R"("mincount": 2)") ==
        "field 'x': unknown key 'mincount'; keys are: name, kind, cardinality, min_count, hash_buckets, vocabulary, "
        "separator, max_values, transform, fill, mean, scale");
  CHECK(refusal_of_field(R"("kind": "image")") ==
        "field 'x'.kind must be one of categorical, numeric, multi, got \"image\"");
  CHECK(refusal_of_field(R"("transform": "sqrt")") ==
        "field 'x'.transform must be one of none, log, standard, minmax, log_standard, got \"sqrt\"");
  CHECK(refusal_of_field(R"("min_count": "2")") == "field 'x'.min_count must be an integer, got \"2\"");
  CHECK(refusal_of_field(R"("cardinality": -1)") == "field 'x': cardinality must be in [0, 2147483647], got -1");
  CHECK(refusal_of_field(R"("cardinality": 2147483648)") ==
        "field 'x': cardinality must be in [0, 2147483647], got 2147483648");
  CHECK(refusal_of_field(R"("min_count": 0)") == "field 'x': min_count must be in [1, 9223372036854775807], got 0");
  CHECK(refusal_of_field(R"("hash_buckets": 2147483647)") ==
        "field 'x': hash_buckets must be in [0, 2147483646], got 2147483647");
  CHECK(refusal_of_field(R"("max_values": 65537)") == "field 'x': max_values must be in [0, 65536], got 65537");
  CHECK(refusal_of_field(R"("separator": "")") == "field 'x': separator must not be empty");
  CHECK(refusal_of_field(R"("scale": 0)") == "field 'x': scale must be finite and above 0, got 0");
  CHECK(refusal_of_field(R"("scale": -1)") == "field 'x': scale must be finite and above 0, got -1");
}

TEST_CASE("a schema that is not counted is refused where rows are encoded") {
  CHECK_NOTHROW(check_counted(counted()));
  const auto refusal = [](std::size_t field, const std::function<void(FieldSpec&)>& change) {
    auto schema = counted();
    change(schema.fields[field]);
    return message_of<DataError>([&] { check_counted(schema); });
  };
  CHECK(refusal(0, [](auto& spec) { spec.cardinality = 0; }) ==
        "field 'user': cardinality must be in [1, 2147483647], got 0");
  CHECK(refusal(1, [](auto& spec) { spec.cardinality = 100; }) ==
        "field 'hashed': cardinality must be hash_buckets + 1 = 101, got 100");
  CHECK(refusal(2, [](auto& spec) { spec.max_values = 0; }) ==
        "field 'genres': max_values must be in [1, 65536], got 0");
  CHECK(refusal(3, [](auto& spec) { spec.mean = NAN; }) == "field 'price': mean must be finite, got nan");
  CHECK(refusal(3, [](auto& spec) { spec.fill = INFINITY; }) == "field 'price': fill must be finite, got inf");
  CHECK(refusal(3, [](auto& spec) { spec.scale = INFINITY; }) ==
        "field 'price': scale must be finite and above 0, got inf");
}

TEST_CASE("a schema that is not UTF-8 is refused as data, not as an error of the JSON library") {
  Schema schema = counted();
  schema.fields[0].name = "caf\xe9";
  CHECK_THAT(message_of<DataError>([&] { schema_to_json(schema); }), StartsWith("a schema must be UTF-8 text, got {"));
  CHECK_THAT(message_of<DataError>([&] { (void)schema.fingerprint(); }), StartsWith("a schema must be UTF-8 text"));
}

TEST_CASE("the fingerprint covers what fixes an encoded row, and nothing else") {
  const auto changed = [](std::size_t field, const std::function<void(FieldSpec&)>& change) {
    auto schema = counted();
    change(schema.fields[field]);
    return schema.fingerprint() != counted().fingerprint();
  };
  CHECK(counted().fingerprint().size() == 16);
  CHECK_FALSE(changed(0, [](auto&) {}));
  CHECK_FALSE(changed(0, [](auto& spec) { spec.min_count = 7; }));
  CHECK(changed(0, [](auto& spec) { spec.name = "item"; }));
  CHECK(changed(0, [](auto& spec) { spec.cardinality = 11; }));
  CHECK(changed(0, [](auto& spec) { spec.vocabulary = "ac"; }));
  CHECK(changed(1, [](auto& spec) { spec.hash_buckets = 99; }));
  CHECK(changed(2, [](auto& spec) { spec.kind = FieldKind::kCategorical; }));
  CHECK(changed(2, [](auto& spec) { spec.separator = ","; }));
  CHECK(changed(2, [](auto& spec) { spec.max_values = 4; }));
  CHECK(changed(3, [](auto& spec) { spec.transform = Transform::kLog; }));
  CHECK(changed(3, [](auto& spec) { spec.fill = 1.0; }));
  CHECK(changed(3, [](auto& spec) { spec.mean = std::nextafter(1.5, 2.0); }));
  CHECK(changed(3, [](auto& spec) { spec.scale = 2.5; }));
  auto schema = counted();
  std::swap(schema.fields[0], schema.fields[1]);
  CHECK(schema.fingerprint() != counted().fingerprint());
}

TEST_CASE("a schema tells fields with ids, their sizes, slots and dense columns") {
  const auto schema = counted();
  CHECK(schema.id_field_names() == std::vector<std::string>{"user", "hashed", "genres"});
  CHECK(schema.cardinalities() == std::vector<int64_t>{10, 101, 5});
  CHECK(schema.slots() == std::vector<int64_t>{1, 1, 3});
  CHECK(schema.slot_count() == 5);
  CHECK(schema.dense_count() == 1);
}

}  // namespace
}  // namespace afm
