#include "libafm/data/encoder.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>

#include "libafm/core/error.h"
#include "tests/core/temporary_folder.h"

namespace afm {
namespace {

using testing::message_of;

using Ids = std::vector<int32_t>;
using Text = std::string_view;

Vocabulary vocabulary_of(std::vector<std::string> values) {
  std::vector<int64_t> counts(values.size(), 1);
  return {.values = std::move(values), .counts = std::move(counts)};
}

Encoder categorical(int64_t hash_buckets = 0) {
  const int64_t cardinality = hash_buckets > 0 ? hash_buckets + 1 : 4;
  return {{.fields = {{.name = "user", .cardinality = cardinality, .hash_buckets = hash_buckets}}},
          {hash_buckets > 0 ? Vocabulary{} : vocabulary_of({"bob", "ann", "eve"})}};
}

Encoder multi(std::string separator, int64_t slots) {
  const FieldSpec spec{.name = "genres",
                       .kind = FieldKind::kMulti,
                       .cardinality = 4,
                       .separator = std::move(separator),
                       .max_values = slots};
  return {{.fields = {spec}}, {vocabulary_of({"drama", "war", "sci|fi"})}};
}

Encoder numeric(FieldSpec spec) {
  spec.kind = FieldKind::kNumeric;
  return {{.fields = {spec}}, {}};
}

Ids categorical_ids(const Encoder& encoder, const std::vector<Text>& values) {
  Ids ids(values.size(), -7);
  encoder.encode_categorical(0, values, ids);
  return ids;
}

Ids multi_ids(const Encoder& encoder, const std::vector<Text>& values) {
  Ids ids(values.size() * static_cast<std::size_t>(encoder.schema().slot_count()), -7);
  encoder.encode_multi(0, values, ids);
  return ids;
}

std::vector<float> numbers(const Encoder& encoder, const std::vector<double>& values) {
  std::vector<float> dense(values.size(), -7.0F);
  encoder.encode_numeric(0, values, dense);
  return dense;
}

TEST_CASE("values become their ids; unknown and missing ones become 0") {
  CHECK(categorical_ids(categorical(), {"ann", "bob", "zoe", "", "eve", "Ann", "ann "}) == Ids{2, 1, 0, 0, 3, 0, 0});
  CHECK(categorical_ids(categorical(), {}).empty());
}

TEST_CASE("a categorical value is not split") {
  const Encoder encoder({.fields = {{.name = "user", .cardinality = 3}}}, {vocabulary_of({"a|b", "a"})});
  CHECK(categorical_ids(encoder, {"a|b", "a"}) == Ids{1, 2});
}

TEST_CASE("hashed values spread over 1 to hash_buckets, the same each time; a missing one is 0") {
  constexpr int64_t kBuckets = 50;
  const auto encoder = categorical(kBuckets);
  std::set<int32_t> seen;
  for (int i = 0; i < 2000; ++i) {
    const auto value = "user" + std::to_string(i);
    const auto id = encoder.id_of(0, value);
    REQUIRE(id >= 1);
    REQUIRE(id <= kBuckets);
    CHECK(categorical_ids(categorical(kBuckets), {value}) == Ids{id});
    seen.insert(id);
  }
  CHECK(seen.size() == kBuckets);
  CHECK(encoder.id_of(0, "") == 0);
}

TEST_CASE("hashed ids are those of earlier versions") {
  // Recorded: 1 + XXH3_64bits(value) mod 1000000. A model that was trained on them relies on it.
  const auto encoder = categorical(1'000'000);
  CHECK(encoder.id_of(0, "a") == 1 + static_cast<int32_t>(0xe6c632b61e964e1fULL % 1'000'000));
  CHECK(encoder.id_of(0, "abc") == 1 + static_cast<int32_t>(0x78af5f94892f3950ULL % 1'000'000));
}

TEST_CASE("multi-valued rows fill their slots from the left; the rest is empty") {
  CHECK(multi_ids(multi("|", 3), {"war", "war|drama", "", "zoo|war"}) ==
        Ids{2, -1, -1, 2, 1, -1, -1, -1, -1, 0, 2, -1});
}

TEST_CASE("parts beyond the slots are cut off, empty parts are dropped before that") {
  CHECK(multi_ids(multi("|", 2), {"war|drama|war", "|||drama||war|drama", "||", "war|"}) ==
        Ids{2, 1, 1, 2, -1, -1, 2, -1});
}

TEST_CASE("separators may be longer than one character") {
  CHECK(multi_ids(multi(", ", 3), {"war, drama", "war,drama", "sci|fi, , war", ", "}) ==
        Ids{2, 1, -1, 0, -1, -1, 3, 2, -1, -1, -1, -1});
  CHECK(multi_ids(multi("::", 2), {"war:::drama", "war::drama:"}) == Ids{2, 0, 2, 0});
  CHECK(multi_ids(multi("·", 2), {"war·drama"}) == Ids{2, 1});
}

TEST_CASE("numbers go through the named transform") {
  const std::vector<double> raw = {0.0, 1.5, -3.0, 1e6};
  const auto expect = [&](Transform transform, auto reference) {
    INFO(name_of(transform));
    const auto dense = numbers(numeric({.name = "price", .transform = transform, .mean = 0.5, .scale = 4.0}), raw);
    for (std::size_t i = 0; i < raw.size(); ++i) CHECK(dense[i] == static_cast<float>((reference(raw[i]) - 0.5) / 4.0));
  };
  const auto same = [](double x) { return x; };
  const auto log = [](double x) { return x < 0 ? -std::log1p(-x) : std::log1p(x); };
  expect(Transform::kNone, same);
  expect(Transform::kStandard, same);
  expect(Transform::kMinMax, same);
  expect(Transform::kLog, log);
  expect(Transform::kLogStandard, log);
}

TEST_CASE("a standardised training column has mean 0 and deviation 1, a minmax one runs from 0 to 1") {
  const std::vector<double> column = {3.0, NAN, 8.0, -2.0, 0.5, 40.0};
  for (const auto transform : {Transform::kStandard, Transform::kLogStandard, Transform::kMinMax}) {
    EncoderBuilder builder({.fields = {{.name = "x", .kind = FieldKind::kNumeric, .transform = transform}}});
    builder.add_numbers(0, column);
    auto dense = numbers(builder.build(), column);
    dense.erase(dense.begin() + 1);  // the missing one
    double sum = 0, squares = 0;
    for (const double x : dense) {
      sum += x;
      squares += x * x;
    }
    if (transform == Transform::kMinMax) {
      CHECK(*std::min_element(dense.begin(), dense.end()) == 0.0F);
      CHECK(*std::max_element(dense.begin(), dense.end()) == 1.0F);
    } else {
      CHECK(sum / 5 == Catch::Approx(0.0).margin(1e-6));
      CHECK(squares / 5 == Catch::Approx(1.0).epsilon(1e-6));
    }
  }
}

TEST_CASE("a missing number takes the raw fill, then the transform") {
  const auto encoder =
      numeric({.name = "price", .transform = Transform::kStandard, .fill = 7.0, .mean = 1.0, .scale = 2.0});
  CHECK(numbers(encoder, {NAN, 7.0, std::numeric_limits<double>::quiet_NaN()}) == std::vector{3.0F, 3.0F, 3.0F});
}

TEST_CASE("infinities and results beyond float32 are refused with their row") {
  const auto refusal = [](const FieldSpec& spec, const std::vector<double>& values) {
    return message_of<DataError>([&] { numbers(numeric(spec), values); });
  };
  CHECK(refusal({.name = "price", .transform = Transform::kLog}, {1.0, INFINITY}) ==
        "row 1: field 'price' must be finite, got inf");
  CHECK(refusal({.name = "price", .transform = Transform::kMinMax}, {-INFINITY}) ==
        "row 0: field 'price' must be finite, got -inf");
  CHECK(refusal({.name = "price", .transform = Transform::kNone}, {0.0, NAN, 1e300}) ==
        "row 2: field 'price': 1e+300 is beyond float32 after the transform");
  CHECK(refusal({.name = "price", .transform = Transform::kLog}, {1e300}).empty());
}

TEST_CASE("a field of another kind, one that is not there, and spans of the wrong size are refused") {
  const Encoder encoder({.fields = {{.name = "u", .cardinality = 1},
                                    {.name = "g", .kind = FieldKind::kMulti, .cardinality = 1, .max_values = 2},
                                    {.name = "p", .kind = FieldKind::kNumeric}}},
                        {{}, {}});
  const std::vector<Text> values = {"a", "b"};
  const std::vector<double> raw = {1.0, 2.0};
  Ids two(2), three(3), four(4);
  std::vector<float> dense(2), short_dense(1);
  const auto refusal = [](auto call) { return message_of<std::invalid_argument>(call); };
  CHECK(refusal([&] { encoder.encode_categorical(1, values, four); }) ==
        "Encoder: field 'g' must be categorical, it is multi");
  CHECK(refusal([&] { encoder.encode_multi(0, values, two); }) ==
        "Encoder: field 'u' must be multi, it is categorical");
  CHECK(refusal([&] { encoder.encode_numeric(0, raw, dense); }) ==
        "Encoder: field 'u' must be numeric, it is categorical");
  CHECK(refusal([&] { (void)encoder.id_of(2, "a"); }) == "Encoder: field 'p' is numeric and has no ids");
  CHECK(refusal([&] { (void)encoder.id_of(-1, "a"); }) == "Encoder: field must be in [0, 3), got -1");
  CHECK(refusal([&] { (void)encoder.id_of(3, "a"); }) == "Encoder: field must be in [0, 3), got 3");
  CHECK(refusal([&] { encoder.encode_categorical(0, values, three); }) ==
        "Encoder: field 'u' needs room for 2 results, got 3");
  CHECK(refusal([&] { encoder.encode_multi(1, values, three); }) ==
        "Encoder: field 'g' needs room for 4 results, got 3");
  CHECK(refusal([&] { encoder.encode_numeric(2, raw, short_dense); }) ==
        "Encoder: field 'p' needs room for 2 results, got 1");
}

TEST_CASE("vocabularies that do not fit the schema are refused") {
  const auto refusal = [](FieldSpec spec, std::vector<Vocabulary> vocabularies) {
    return message_of<DataError>([&] { Encoder({.fields = {spec}}, std::move(vocabularies)); });
  };
  CHECK(refusal({.name = "u", .cardinality = 3}, {}) == "the schema has 1 fields with ids, got 0 vocabularies");
  CHECK(refusal({.name = "u", .cardinality = 4}, {vocabulary_of({"a", "b"})}) ==
        "field 'u' has cardinality 4, its vocabulary has 2 values");
  CHECK(refusal({.name = "u", .cardinality = 3}, {vocabulary_of({"a", "a"})}) ==
        "field 'u': value 'a' is in the vocabulary twice");
  CHECK(refusal({.name = "u", .cardinality = 2}, {{.values = {"a"}, .counts = {}}}) ==
        "field 'u': 1 values have 0 counts");
  CHECK(refusal({.name = "u", .cardinality = 3, .hash_buckets = 2}, {vocabulary_of({"a"})}) ==
        "field 'u' is hashed and has no vocabulary");
  CHECK(refusal({.name = "u", .cardinality = 2, .vocabulary = "0123456789abcdef"}, {vocabulary_of({"a"})}) ==
        "field 'u': the vocabulary is not the one that the schema was counted with");
  CHECK(refusal({.name = "u"}, {{}}) == "field 'u': cardinality must be in [1, 2147483647], got 0");
}

}  // namespace
}  // namespace afm
