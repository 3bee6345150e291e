// Requests are encoded as the rows that a model was trained on.

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include "libafm/core/error.h"
#include "libafm/core/safetensors.h"
#include "libafm/data/encoder.h"
#include "libafm/nn/model_file.h"
#include "libafm/serve/pack.h"
#include "libafm/serve/request.h"
#include "models/models.h"
#include "tests/core/temporary_folder.h"

namespace afm::serve {
namespace {

using afm::testing::TemporaryFolder;

// Values of which some repeat, some are rare, some are empty, and which hold bytes of all kinds.
std::string random_text(std::mt19937& random) {
  constexpr std::string_view kBytes("ab|7.\0\xff\xc3\xa9 ", 10);
  std::string text;
  for (auto size = random() % 5; size > 0; --size) text += kBytes[random() % kBytes.size()];
  return text;
}

double random_number(std::mt19937& random) {
  switch (random() % 6) {
    case 0:
      return 0.0;
    case 1:
      return std::nan("");
    case 2:
      return static_cast<double>(static_cast<int64_t>(random() % 2001) - 1000);
    default:
      return std::normal_distribution<double>(3.0, 500.0)(random);
  }
}

Schema every_field() {
  Schema schema;
  schema.fields = {FieldSpec{.name = "plain", .min_count = 2}, FieldSpec{.name = "hashed", .hash_buckets = 5},
                   FieldSpec{.name = "many", .kind = FieldKind::kMulti},
                   FieldSpec{.name = "few", .kind = FieldKind::kMulti, .separator = "7.", .max_values = 2},
                   FieldSpec{.name = "many hashed", .kind = FieldKind::kMulti, .hash_buckets = 3, .max_values = 4}};
  for (const Transform transform :
       {Transform::kNone, Transform::kLog, Transform::kStandard, Transform::kMinMax, Transform::kLogStandard}) {
    schema.fields.push_back(FieldSpec{.name = "number " + std::string(name_of(transform)),
                                      .kind = FieldKind::kNumeric,
                                      .transform = transform,
                                      .fill = 1.5});
  }
  return schema;
}

Encoder counted(std::mt19937& random) {
  EncoderBuilder builder(every_field());
  const std::vector<FieldSpec> fields = every_field().fields;
  for (std::size_t j = 0; j < fields.size(); ++j) {
    for (int i = 0; i < 300; ++i) {
      const std::string text = random_text(random);
      const std::vector<std::string_view> texts = {text};
      const std::vector<int64_t> once = {1};
      const std::vector<double> numbers = {random_number(random)};
      const auto field = static_cast<int64_t>(j);
      if (!fields[j].has_ids()) {
        builder.add_numbers(field, numbers);
        continue;
      }
      builder.add_counts(field, texts, once);
      if (fields[j].kind == FieldKind::kMulti) builder.add_longest(field, 3);
    }
  }
  return builder.build();
}

TEST_CASE("a request of raw values is encoded as afm::Encoder encodes a row") {
  std::mt19937 random(5);
  const Encoder encoder = counted(random);
  const Schema& schema = encoder.schema();
  const TemporaryFolder folder;
  save_model(*models::DeepFM(models::DeepFMOptions{.embedding_dim = 2, .hidden = {3}}, schema), folder / "model");
  encoder.save(folder / "vocabulary.safetensors");
  pack(folder / "model", folder.path(), folder / "packed");
  const RequestEncoder requests(SafetensorsFile::open(folder / "packed"), schema);
  REQUIRE(requests.slot_count() == schema.slot_count());

  int64_t known = 0;
  for (int row = 0; row < 2000; ++row) {
    std::vector<std::string> texts(schema.fields.size());
    std::vector<double> numbers(schema.fields.size());
    std::vector<Value> request;
    std::vector<int32_t> expected_ids;
    std::vector<float> expected_dense;
    for (std::size_t j = 0; j < schema.fields.size(); ++j) {
      const FieldSpec& field = schema.fields[j];
      const auto number = static_cast<int64_t>(j);
      texts[j] = random_text(random);
      numbers[j] = random_number(random);
      if (field.kind == FieldKind::kNumeric) {
        expected_dense.resize(expected_dense.size() + 1);
        encoder.encode_numeric(number, std::span(&numbers[j], 1), std::span(&expected_dense.back(), 1));
        request.emplace_back(numbers[j]);
        continue;
      }
      const std::string_view text = texts[j];
      const auto slots = static_cast<std::size_t>(field.slots());
      expected_ids.resize(expected_ids.size() + slots);
      const std::span<int32_t> ids = std::span(expected_ids).last(slots);
      if (field.kind == FieldKind::kMulti) {
        encoder.encode_multi(number, std::span(&text, 1), ids);
      } else {
        encoder.encode_categorical(number, std::span(&text, 1), ids);
      }
      known += ids[0] > 0 ? 1 : 0;
      request.emplace_back(text);
    }
    std::vector<int32_t> ids(expected_ids.size(), 99);
    std::vector<float> dense(expected_dense.size(), 99.0F);
    requests.encode(request, ids.data(), dense.data());
    CHECK(ids == expected_ids);
    CHECK(dense == expected_dense);
  }
  CHECK(known > 1000);  // the comparison is not one of unknown values
}

}  // namespace
}  // namespace afm::serve
