#include <algorithm>
#include <cmath>
#include <limits>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/data/encoder.h"
#include "libafm/data/transform.h"
#include "libafm/data/vocabulary.h"

namespace afm {
namespace {

FieldSpec& field_at(Schema& schema, int64_t field, bool has_ids) {
  const auto count = static_cast<int64_t>(schema.fields.size());
  if (field < 0 || field >= count) {
    fail<std::invalid_argument>("EncoderBuilder: field must be in [0, {}), got {}", count, field);
  }
  auto& spec = schema.fields[static_cast<std::size_t>(field)];
  if (spec.has_ids() != has_ids) {
    fail<std::invalid_argument>("EncoderBuilder: field '{}' must be {}, it is {}", spec.name,
                                has_ids ? "categorical or multi" : "numeric", name_of(spec.kind));
  }
  return spec;
}

// Falling count, ties by value: the result does not depend on the order of the table.
Vocabulary sorted(const auto& counts, int64_t min_count) {
  std::vector<std::pair<std::string_view, int64_t>> items;
  for (const auto& [value, count] : counts) {
    if (count >= min_count) items.emplace_back(value, count);
  }
  std::sort(items.begin(), items.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  Vocabulary vocabulary;
  for (const auto& [value, count] : items) {
    vocabulary.values.emplace_back(value);
    vocabulary.counts.push_back(count);
  }
  return vocabulary;
}

void set_scale(FieldSpec& spec, int64_t count, double mean, double variance, double low, double high) {
  spec.mean = 0.0;
  spec.scale = 1.0;
  if (count == 0) return;
  if (spec.transform == Transform::kMinMax) {
    spec.mean = low;
    spec.scale = high - low;
  } else if (spec.transform == Transform::kStandard || spec.transform == Transform::kLogStandard) {
    spec.mean = mean;
    spec.scale = std::sqrt(variance);
  }
  if (!(spec.scale > 0.0) || !std::isfinite(spec.scale)) spec.scale = 1.0;  // a constant column
}

}  // namespace

EncoderBuilder::EncoderBuilder(Schema schema) : schema_(std::move(schema)) {
  for (auto& spec : schema_.fields) {
    spec.cardinality = 0;
    spec.vocabulary.clear();
    spec.mean = 0.0;
    spec.scale = 1.0;
  }
  schema_ = schema_from_json(schema_to_json(schema_));  // every rule, in one place
  counts_.resize(schema_.fields.size());
  longest_.assign(schema_.fields.size(), 1);
  numbers_.resize(schema_.fields.size());
}

void EncoderBuilder::add_counts(int64_t field, std::span<const std::string_view> values,
                                std::span<const int64_t> counts) {
  const auto& spec = field_at(schema_, field, /*has_ids=*/true);
  if (values.size() != counts.size()) {
    fail<std::invalid_argument>("EncoderBuilder: field '{}': {} values have {} counts", spec.name, values.size(),
                                counts.size());
  }
  if (spec.hash_buckets > 0) return;
  auto& seen = counts_[static_cast<std::size_t>(field)];
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (counts[i] < 0) {
      fail<std::invalid_argument>("EncoderBuilder: field '{}': a count must be at least 0, got {}", spec.name,
                                  counts[i]);
    }
    if (values[i].empty() || counts[i] == 0) continue;
    const auto found = seen.find(values[i]);
    if (found == seen.end()) {
      seen.emplace(values[i], counts[i]);
    } else {
      found->second += counts[i];
    }
  }
}

void EncoderBuilder::add_longest(int64_t field, int64_t values_in_row) {
  const auto& spec = field_at(schema_, field, /*has_ids=*/true);
  if (spec.kind != FieldKind::kMulti) {
    fail<std::invalid_argument>("EncoderBuilder: field '{}' must be multi, it is {}", spec.name, name_of(spec.kind));
  }
  auto& longest = longest_[static_cast<std::size_t>(field)];
  longest = std::max(longest, values_in_row);
}

void EncoderBuilder::add_numbers(int64_t field, std::span<const double> values) {
  const auto& spec = field_at(schema_, field, /*has_ids=*/false);
  auto& running = numbers_[static_cast<std::size_t>(field)];
  for (const double value : values) {
    if (std::isnan(value)) continue;
    if (std::isinf(value)) fail<DataError>("field '{}' must be finite, got {}", spec.name, value);
    const double x = raw_to_scale(spec.transform, value);
    running.low = running.count == 0 ? x : std::min(running.low, x);
    running.high = running.count == 0 ? x : std::max(running.high, x);
    ++running.count;
    const double delta = x - running.mean;  // Welford
    running.mean += delta / static_cast<double>(running.count);
    running.m2 += delta * (x - running.mean);
  }
}

Encoder EncoderBuilder::build() const {
  Schema schema = schema_;
  std::vector<Vocabulary> vocabularies;
  for (std::size_t field = 0; field < schema.fields.size(); ++field) {
    auto& spec = schema.fields[field];
    if (!spec.has_ids()) {
      const auto& seen = numbers_[field];
      set_scale(spec, seen.count, seen.mean, seen.m2 / static_cast<double>(std::max<int64_t>(seen.count, 1)), seen.low,
                seen.high);
      continue;
    }
    auto& vocabulary = vocabularies.emplace_back();
    if (spec.hash_buckets == 0) {
      vocabulary = sorted(counts_[field], spec.min_count);
      spec.vocabulary = hash_of_values(vocabulary.values);
    }
    spec.cardinality = 1 + (spec.hash_buckets > 0 ? spec.hash_buckets : static_cast<int64_t>(vocabulary.values.size()));
    if (spec.kind == FieldKind::kMulti && spec.max_values == 0) spec.max_values = longest_[field];
  }
  return {std::move(schema), std::move(vocabularies)};
}

}  // namespace afm
