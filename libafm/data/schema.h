#pragma once

// What the columns of a table are, and how a model sees them. As JSON (schema.json), which a person may edit:
//   {"label": "click", "fields": [{"name": "user", "kind": "categorical", "min_count": 2},
//                                 {"name": "price", "kind": "numeric", "transform": "log"},
//                                 {"name": "genres", "kind": "multi", "separator": "|", "max_values": 6}]}
// `afm prepare` adds what it counted: cardinality, slots, mean and scale.

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "libafm/core/fields.h"

namespace afm {

enum class FieldKind { kCategorical, kNumeric, kMulti };
constexpr std::array<std::string_view, 3> enum_names(std::type_identity<FieldKind>) {
  return {"categorical", "numeric", "multi"};
}

// How a number becomes a dense feature. kLog: sign(x) log(1 + |x|). kStandard: (x - mean) / scale with the training
// mean and standard deviation. kMinMax: (x - mean) / scale with the training minimum and range. kLogStandard: both.
enum class Transform { kNone, kLog, kStandard, kMinMax, kLogStandard };
constexpr std::array<std::string_view, 5> enum_names(std::type_identity<Transform>) {
  return {"none", "log", "standard", "minmax", "log_standard"};
}

struct FieldSpec {
  std::string name;
  FieldKind kind = FieldKind::kCategorical;
  // categorical and multi
  int64_t cardinality = 0;      // ids 0 .. cardinality-1, the unknown value 0 included; 0 = not counted yet
  int64_t min_count = 1;        // rarer values become unknown
  int64_t hash_buckets = 0;     // > 0: no vocabulary, id = 1 + xxh3(value) mod buckets
  std::string vocabulary = "";  // hash of the values in id order, found by prepare; empty = not checked
  // multi
  std::string separator = "|";
  int64_t max_values = 0;  // slots; longer rows are cut; 0 = the longest training row
  // numeric
  Transform transform = Transform::kLogStandard;
  double fill = 0.0;               // raw value taken for a missing number
  double mean = 0.0, scale = 1.0;  // found by prepare

  bool has_ids() const { return kind != FieldKind::kNumeric; }
  int64_t slots() const { return kind == FieldKind::kMulti ? max_values : (has_ids() ? 1 : 0); }
  bool operator==(const FieldSpec&) const = default;
};

constexpr auto field_list(std::type_identity<FieldSpec>) {
  return std::make_tuple(
      field("name", &FieldSpec::name, "Column of the table."),
      field("kind", &FieldSpec::kind, "How the column is read."),
      field("cardinality", &FieldSpec::cardinality, "Number of ids, the unknown value included; counted by prepare."),
      field("min_count", &FieldSpec::min_count, "Values seen fewer times become unknown."),
      field("hash_buckets", &FieldSpec::hash_buckets, "Hash values into this many ids instead of counting; 0 = count."),
      field("vocabulary", &FieldSpec::vocabulary, "Hash of the counted values in id order; found by prepare."),
      field("separator", &FieldSpec::separator, "Text between the values of a multi-valued field."),
      field("max_values", &FieldSpec::max_values, "Slots of a multi-valued field; 0 = the longest training row."),
      field("transform", &FieldSpec::transform, "How a number becomes a dense feature."),
      field("fill", &FieldSpec::fill, "Raw value taken for a missing number."),
      field("mean", &FieldSpec::mean, "Subtracted after the logarithm; found by prepare."),
      field("scale", &FieldSpec::scale, "Divided by after the mean is subtracted; found by prepare."));
}

struct Schema {
  std::string label = "label";
  std::vector<FieldSpec> fields;  // id fields in slot order, numeric fields in dense column order

  std::vector<std::string> id_field_names() const;  // F names
  std::vector<int64_t> cardinalities() const;       // [F]
  std::vector<int64_t> slots() const;               // [F]
  int64_t slot_count() const;                       // S
  int64_t dense_count() const;                      // Q
  // 16 hex digits over everything that fixes the meaning of an encoded row. A dataset and a model fit when equal.
  std::string fingerprint() const;
  bool operator==(const Schema&) const = default;
};

// Throws DataError: an unknown key or kind, a field named twice, a size out of range, no fields.
Schema schema_from_json(std::string_view text);
std::string schema_to_json(const Schema& schema);       // indented; prints what differs from the defaults
Schema read_schema(const std::filesystem::path& path);  // errors name the file
void write_schema(const std::filesystem::path& path, const Schema& schema);
// Every rule on a counted schema (cardinality >= 1, slots >= 1, finite scale > 0, ...). Throws DataError.
void check_counted(const Schema& schema);

}  // namespace afm
