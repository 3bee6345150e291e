#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>

#include "libafm/core/error.h"
#include "libafm/data/encoder.h"
#include "tests/core/temporary_folder.h"

namespace afm {
namespace {

using testing::message_of;

using Random = std::mt19937_64;
using Text = std::string_view;
using Counted = std::vector<std::pair<std::string, int64_t>>;

Schema one_field(FieldSpec spec) { return {.fields = {std::move(spec)}}; }

// A few hundred values, most of them rare and many of the same count.
Counted random_counts(Random& random) {
  Counted counts;
  for (int i = 0; i < 300; ++i) {
    counts.emplace_back("v" + std::to_string(i), std::geometric_distribution<int64_t>(0.2)(random));
  }
  return counts;
}

Encoder build_from(const FieldSpec& spec, const std::vector<Counted>& chunks) {
  EncoderBuilder builder(one_field(spec));
  for (const auto& chunk : chunks) {
    std::vector<Text> values;
    std::vector<int64_t> counts;
    for (const auto& [value, count] : chunk) {
      values.push_back(value);
      counts.push_back(count);
    }
    builder.add_counts(0, values, counts);
  }
  return builder.build();
}

// Each count is dealt out in random parts over random chunks, in random order.
std::vector<Counted> dealt_out(const Counted& counts, Random& random) {
  std::vector<Counted> chunks(std::uniform_int_distribution<std::size_t>(1, 6)(random));
  for (const auto& [value, count] : counts) {
    for (int64_t left = count; left > 0;) {
      const auto part = std::uniform_int_distribution<int64_t>(1, left)(random);
      chunks[random() % chunks.size()].emplace_back(value, part);
      left -= part;
    }
  }
  for (auto& chunk : chunks) std::shuffle(chunk.begin(), chunk.end(), random);
  return chunks;
}

Vocabulary expected_vocabulary(const Counted& counts, int64_t min_count) {
  std::map<std::pair<int64_t, std::string>, int64_t> order;
  for (const auto& [value, count] : counts) {
    if (count >= std::max<int64_t>(min_count, 1)) order[{-count, value}] = count;
  }
  Vocabulary vocabulary;
  for (const auto& [key, count] : order) {
    vocabulary.values.push_back(key.second);
    vocabulary.counts.push_back(count);
  }
  return vocabulary;
}

FieldSpec scaled(Transform transform, const std::vector<std::vector<double>>& chunks) {
  EncoderBuilder builder(one_field({.name = "x", .kind = FieldKind::kNumeric, .transform = transform}));
  for (const auto& chunk : chunks) builder.add_numbers(0, chunk);
  return builder.build().schema().fields[0];
}

TEST_CASE("a vocabulary falls by count, then by value, however the table was cut into chunks") {
  Random random(1);
  for (int trial = 0; trial < 20; ++trial) {
    const auto counts = random_counts(random);
    const int64_t min_count = trial % 4 + 1;
    const auto expected = expected_vocabulary(counts, min_count);
    const FieldSpec spec{.name = "user", .min_count = min_count};
    const auto whole = build_from(spec, {counts});
    const auto parts = build_from(spec, dealt_out(counts, random));
    CHECK(whole.vocabularies()[0].values == expected.values);
    CHECK(whole.vocabularies()[0].counts == expected.counts);
    CHECK(parts.vocabularies()[0].values == expected.values);
    CHECK(parts.vocabularies()[0].counts == expected.counts);
    CHECK(parts.schema() == whole.schema());
    CHECK(whole.schema().cardinalities()[0] == std::ssize(expected.values) + 1);
    CHECK(whole.schema().fields[0].vocabulary.size() == 16);
  }
}

TEST_CASE("min_count sends rarer values to the unknown, over chunks together") {
  const auto encoder =
      build_from({.name = "user", .min_count = 3}, {{{"a", 2}, {"b", 2}, {"c", 5}, {"", 9}}, {{"a", 1}, {"d", 0}}});
  CHECK(encoder.vocabularies()[0].values == std::vector<std::string>{"c", "a"});
  CHECK(encoder.id_of(0, "c") == 1);
  CHECK(encoder.id_of(0, "a") == 2);
  CHECK(encoder.id_of(0, "b") == 0);
  CHECK(encoder.id_of(0, "") == 0);
}

TEST_CASE("other values or another order of them are another vocabulary") {
  const auto hash = [](const Counted& counts) {
    return build_from({.name = "user"}, {counts}).schema().fields[0].vocabulary;
  };
  CHECK(hash({{"a", 2}, {"b", 1}}) == hash({{"b", 5}, {"a", 9}}));
  CHECK(hash({{"a", 2}, {"b", 1}}) != hash({{"a", 1}, {"b", 2}}));
  CHECK(hash({{"ab", 2}, {"c", 1}}) != hash({{"a", 2}, {"bc", 1}}));
}

TEST_CASE("a field without a single counted value has the unknown id alone") {
  const auto encoder = build_from({.name = "user"}, {});
  CHECK(encoder.schema().cardinalities() == std::vector<int64_t>{1});
  CHECK(encoder.id_of(0, "a") == 0);
}

TEST_CASE("a hashed field counts nothing") {
  const auto encoder = build_from({.name = "user", .hash_buckets = 100}, {{{"a", 2}}});
  CHECK(encoder.vocabularies()[0].values.empty());
  CHECK(encoder.schema().cardinalities() == std::vector<int64_t>{101});
}

TEST_CASE("the slots of a multi-valued field are its longest row, unless the schema sets them") {
  for (const int64_t max_values : {0, 2}) {
    EncoderBuilder builder(one_field({.name = "g", .kind = FieldKind::kMulti, .max_values = max_values}));
    for (const int64_t longest : {0, 4, 3}) builder.add_longest(0, longest);
    CHECK(builder.build().schema().slot_count() == (max_values > 0 ? max_values : 4));
  }
  EncoderBuilder empty(one_field({.name = "g", .kind = FieldKind::kMulti}));
  CHECK(empty.build().schema().slot_count() == 1);
}

TEST_CASE("mean and scale are those of the numbers that are there, in chunks as in one") {
  Random random(2);
  std::normal_distribution<double> normal(1e6, 3.0);
  std::vector<double> numbers;
  for (int i = 0; i < 1000; ++i) numbers.push_back(normal(random));
  double sum = 0, squares = 0;
  for (const double x : numbers) sum += x;
  const double mean = sum / 1000;
  for (const double x : numbers) squares += (x - mean) * (x - mean);
  const std::vector<double> head(numbers.begin(), numbers.begin() + 300), tail(numbers.begin() + 300, numbers.end());
  const auto parts = scaled(Transform::kStandard, {head, {NAN, NAN}, tail});
  CHECK(parts.mean == Catch::Approx(mean).epsilon(1e-14));
  CHECK(parts.scale == Catch::Approx(std::sqrt(squares / 1000)).epsilon(1e-10));
  CHECK(scaled(Transform::kStandard, {numbers}) == parts);
  const auto range = scaled(Transform::kMinMax, {head, {NAN}, tail});
  const auto [low, high] = std::minmax_element(numbers.begin(), numbers.end());
  CHECK(range.mean == *low);
  CHECK(range.scale == *high - *low);
}

TEST_CASE("log_standard takes the figures of the logarithms; none and log take no figures") {
  const auto spec = scaled(Transform::kLogStandard, {{std::exp(1.0) - 1, 1 - std::exp(3.0)}});
  CHECK(spec.mean == Catch::Approx(-1.0));
  CHECK(spec.scale == Catch::Approx(2.0));
  for (const auto transform : {Transform::kNone, Transform::kLog}) {
    CHECK(scaled(transform, {{5.0, 9.0}}).mean == 0.0);
    CHECK(scaled(transform, {{5.0, 9.0}}).scale == 1.0);
  }
}

TEST_CASE("a constant, a missing and an absurdly wide column have scale 1") {
  for (const auto transform : {Transform::kStandard, Transform::kMinMax, Transform::kLogStandard}) {
    CHECK(scaled(transform, {{7.1, 7.1, 7.1}}).scale == 1.0);
    CHECK(scaled(transform, {{NAN, NAN}}).scale == 1.0);
    CHECK(scaled(transform, {}).mean == 0.0);
  }
  CHECK(scaled(Transform::kMinMax, {{-1.7e308, 1.7e308}}).scale == 1.0);
}

TEST_CASE("counting again forgets what was counted before, but for the slots") {
  const FieldSpec user{.name = "u", .cardinality = 9, .vocabulary = "old"};
  const FieldSpec price{.name = "p", .kind = FieldKind::kNumeric, .mean = NAN, .scale = -1.0};
  const FieldSpec genres{.name = "g", .kind = FieldKind::kMulti, .cardinality = 5, .max_values = 6};
  const auto schema = EncoderBuilder({.fields = {user, price, genres}}).build().schema();
  CHECK(schema.cardinalities() == std::vector<int64_t>{1, 1});
  CHECK(schema.fields[1].mean == 0.0);
  CHECK(schema.slot_count() == 7);
}

TEST_CASE("a builder refuses what it cannot count") {
  EncoderBuilder builder({.fields = {{.name = "u"}, {.name = "p", .kind = FieldKind::kNumeric}}});
  const std::vector<Text> values = {"a"};
  const std::vector<int64_t> none, negative = {-1}, one = {1};
  const auto refusal = [](auto call) { return message_of<std::invalid_argument>(call); };
  CHECK(refusal([&] { builder.add_counts(2, values, one); }) == "EncoderBuilder: field must be in [0, 2), got 2");
  CHECK(refusal([&] { builder.add_counts(1, values, one); }) ==
        "EncoderBuilder: field 'p' must be categorical or multi, it is numeric");
  CHECK(refusal([&] { builder.add_counts(0, values, none); }) == "EncoderBuilder: field 'u': 1 values have 0 counts");
  CHECK(refusal([&] { builder.add_counts(0, values, negative); }) ==
        "EncoderBuilder: field 'u': a count must be at least 0, got -1");
  CHECK(refusal([&] { builder.add_longest(0, 2); }) == "EncoderBuilder: field 'u' must be multi, it is categorical");
  CHECK(refusal([&] { builder.add_numbers(0, std::vector{1.0}); }) ==
        "EncoderBuilder: field 'u' must be numeric, it is categorical");
  CHECK(message_of<DataError>([&] {
          builder.add_numbers(1, std::vector<double>{1.0, -INFINITY});
        }) == "field 'p' must be finite, got -inf");
  CHECK(message_of<DataError>([&] { EncoderBuilder(Schema{}); }) == "fields must name at least one column");
}

}  // namespace
}  // namespace afm
