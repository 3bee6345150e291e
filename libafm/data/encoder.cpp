#include "libafm/data/encoder.h"

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/hash.h"
#include "libafm/core/tensors.h"
#include "libafm/core/version.h"
#include "libafm/data/batch.h"
#include "libafm/data/transform.h"
#include "libafm/data/vocabulary.h"

namespace afm {
namespace {

constexpr std::string_view kVocabularyKind = "afm-vocabulary";

const FieldSpec& field_at(const Schema& schema, int64_t field) {
  const auto count = static_cast<int64_t>(schema.fields.size());
  if (field < 0 || field >= count) {
    fail<std::invalid_argument>("Encoder: field must be in [0, {}), got {}", count, field);
  }
  return schema.fields[static_cast<std::size_t>(field)];
}

const FieldSpec& field_of(const Schema& schema, int64_t field, FieldKind kind) {
  const auto& spec = field_at(schema, field);
  if (spec.kind != kind) {
    fail<std::invalid_argument>("Encoder: field '{}' must be {}, it is {}", spec.name, name_of(kind),
                                name_of(spec.kind));
  }
  return spec;
}

void check_size(const FieldSpec& spec, std::size_t expected, std::size_t found) {
  if (expected != found) {
    fail<std::invalid_argument>("Encoder: field '{}' needs room for {} results, got {}", spec.name, expected, found);
  }
}

}  // namespace

Encoder::Encoder(Schema schema, std::vector<Vocabulary> vocabularies)
    : schema_(std::move(schema)), vocabularies_(std::move(vocabularies)) {
  check_counted(schema_);
  const auto id_fields = schema_.id_field_names().size();
  if (vocabularies_.size() != id_fields) {
    fail<DataError>("the schema has {} fields with ids, got {} vocabularies", id_fields, vocabularies_.size());
  }
  index_.resize(schema_.fields.size());
  std::size_t next = 0;
  for (std::size_t field = 0; field < schema_.fields.size(); ++field) {
    const auto& spec = schema_.fields[field];
    if (!spec.has_ids()) continue;
    const auto& vocabulary = vocabularies_[next++];
    check_vocabulary(spec, vocabulary);
    index_[field].reserve(vocabulary.values.size());
    int32_t id = 0;
    for (const auto& value : vocabulary.values) {
      if (!index_[field].emplace(value, ++id).second) {
        fail<DataError>("field '{}': value '{}' is in the vocabulary twice", spec.name, value);
      }
    }
  }
}

int32_t Encoder::find(std::size_t field, std::string_view value) const {
  if (value.empty()) return 0;
  const auto buckets = schema_.fields[field].hash_buckets;
  if (buckets > 0) return static_cast<int32_t>(1 + hash_of(value) % static_cast<uint64_t>(buckets));
  const auto found = index_[field].find(value);
  return found == index_[field].end() ? 0 : found->second;
}

int32_t Encoder::id_of(int64_t field, std::string_view value) const {
  const auto& spec = field_at(schema_, field);
  if (!spec.has_ids()) fail<std::invalid_argument>("Encoder: field '{}' is numeric and has no ids", spec.name);
  return find(static_cast<std::size_t>(field), value);
}

void Encoder::encode_categorical(int64_t field, std::span<const std::string_view> values,
                                 std::span<int32_t> ids) const {
  const auto& spec = field_of(schema_, field, FieldKind::kCategorical);
  check_size(spec, values.size(), ids.size());
  for (std::size_t row = 0; row < values.size(); ++row) ids[row] = find(static_cast<std::size_t>(field), values[row]);
}

void Encoder::encode_multi(int64_t field, std::span<const std::string_view> values, std::span<int32_t> ids) const {
  const auto& spec = field_of(schema_, field, FieldKind::kMulti);
  const auto slots = static_cast<std::size_t>(spec.slots());
  check_size(spec, values.size() * slots, ids.size());
  std::fill(ids.begin(), ids.end(), static_cast<int32_t>(kEmptySlot));
  for (std::size_t row = 0; row < values.size(); ++row) {
    auto rest = values[row];
    for (std::size_t slot = 0; slot < slots && !rest.empty();) {
      const auto end = std::min(rest.find(spec.separator), rest.size());
      if (end > 0) ids[row * slots + slot++] = find(static_cast<std::size_t>(field), rest.substr(0, end));
      rest.remove_prefix(std::min(rest.size(), end + spec.separator.size()));
    }
  }
}

void Encoder::encode_numeric(int64_t field, std::span<const double> values, std::span<float> dense) const {
  const auto& spec = field_of(schema_, field, FieldKind::kNumeric);
  check_size(spec, values.size(), dense.size());
  for (std::size_t row = 0; row < values.size(); ++row) {
    const double value = std::isnan(values[row]) ? spec.fill : values[row];
    dense[row] = static_cast<float>((raw_to_scale(spec.transform, value) - spec.mean) / spec.scale);
    if (std::isinf(value)) fail<DataError>("row {}: field '{}' must be finite, got {}", row, spec.name, value);
    if (!std::isfinite(dense[row])) {
      fail<DataError>("row {}: field '{}': {} is beyond float32 after the transform", row, spec.name, value);
    }
  }
}

void Encoder::save(const std::filesystem::path& path) const {
  const Metadata metadata = {{"kind", std::string(kVocabularyKind)},
                             {"version", std::to_string(kFormatVersion)},
                             {"schema", schema_.fingerprint()}};
  TensorMap tensors;
  const auto names = schema_.id_field_names();
  for (std::size_t i = 0; i < names.size(); ++i) put_vocabulary(tensors, names[i], vocabularies_[i]);
  save_tensors(path, metadata, tensors);
}

Encoder Encoder::open(const std::filesystem::path& path, const Schema& schema) {
  const auto file = SafetensorsFile::open(path);
  if (file.metadata_at("kind") != kVocabularyKind)
    fail<FormatError>("{}: is not a vocabulary of libafm", path.string());
  if (file.metadata_at("version") != std::to_string(kFormatVersion)) {
    fail<FormatError>("{}: format version is {}, this libafm reads {}", path.string(), file.metadata_at("version"),
                      kFormatVersion);
  }
  file.verify();
  if (file.metadata_at("schema") != schema.fingerprint()) {
    fail<DataError>("{}: belongs to another schema", path.string());
  }
  std::vector<Vocabulary> vocabularies;
  for (const auto& name : schema.id_field_names()) vocabularies.push_back(read_vocabulary(file, name));
  return {schema, std::move(vocabularies)};
}

}  // namespace afm
