#pragma once

// Raw values to ids and dense features: the same encoder for training and for serving.
//
//   EncoderBuilder counts the values of a table (chunk by chunk), then gives a counted Schema and an Encoder.
//   Encoder turns columns of raw values into ids and dense features.
//
// A vocabulary is sorted by falling count, ties by value: id 1 is the most frequent value, id 0 the unknown, the
// missing and the too rare. Frequency tiers rely on that order.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "libafm/data/schema.h"

namespace afm {

// The values of one id field. Values are bytes; a missing value is the empty string.
struct Vocabulary {
  std::vector<std::string> values;  // values[i] has id i + 1
  std::vector<int64_t> counts;      // counts[i] rows of the training table held values[i]
};

// Lets a map of strings be searched by string_view.
struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

// Safe to use from many threads. `field` is an index in schema().fields; one of another kind, or spans of the wrong
// size, are a std::invalid_argument.
class Encoder {
 public:
  // One vocabulary per id field, in order; empty for a hashed field. Throws DataError when they do not fit the schema.
  Encoder(Schema schema, std::vector<Vocabulary> vocabularies);

  const Schema& schema() const { return schema_; }
  const std::vector<Vocabulary>& vocabularies() const { return vocabularies_; }

  // ids has one entry per value. Unknown and missing values get 0.
  void encode_categorical(int64_t field, std::span<const std::string_view> values, std::span<int32_t> ids) const;
  // One raw value holds several, split at the field's separator; row-major [rows, slots]; unused slots get kEmptySlot.
  // Empty parts are dropped, a value beyond max_values too. Unknown parts get 0.
  void encode_multi(int64_t field, std::span<const std::string_view> values, std::span<int32_t> ids) const;
  // NaN is a missing number and takes the field's fill. An infinity, and a result beyond float32, throws DataError with
  // the row.
  void encode_numeric(int64_t field, std::span<const double> values, std::span<float> dense) const;

  int32_t id_of(int64_t field, std::string_view value) const;

  // vocabulary.safetensors: per field "<name>.values" (uint8), "<name>.ends" (int64), "<name>.counts" (int64).
  void save(const std::filesystem::path& path) const;
  static Encoder open(const std::filesystem::path& path, const Schema& schema);

 private:
  using Index = std::unordered_map<std::string, int32_t, StringHash, std::equal_to<>>;
  int32_t find(std::size_t field, std::string_view value) const;

  Schema schema_;
  std::vector<Vocabulary> vocabularies_;
  std::vector<Index> index_;  // one per field of the schema; empty for hashed and numeric ones
};

// REQUIRES: for each field, add_* for every chunk of the training table, then build() once.
class EncoderBuilder {
 public:
  // Throws DataError for a schema that breaks a rule. What an earlier count filled in is counted anew, but for
  // max_values.
  explicit EncoderBuilder(Schema schema);

  // Counted values, as a group-by gives them: values[i] was seen counts[i] times. May repeat over chunks. Empty values
  // are missing and not counted.
  void add_counts(int64_t field, std::span<const std::string_view> values, std::span<const int64_t> counts);
  // Multi fields: the number of values of the longest row of a chunk.
  void add_longest(int64_t field, int64_t values_in_row);
  // Numeric fields: the raw values of a chunk (NaN: missing, no part of mean and scale). An infinity throws DataError.
  void add_numbers(int64_t field, std::span<const double> values);

  // Sorts, cuts at min_count, fills in cardinality, slots, mean and scale.
  Encoder build() const;

 private:
  struct Running {
    int64_t count = 0;
    double mean = 0, m2 = 0, low = 0, high = 0;
  };
  Schema schema_;
  std::vector<std::unordered_map<std::string, int64_t, StringHash, std::equal_to<>>> counts_;
  std::vector<int64_t> longest_;
  std::vector<Running> numbers_;  // of the transformed (log) values where the transform takes a log
};

}  // namespace afm
