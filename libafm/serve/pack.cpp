#include "libafm/serve/pack.h"

#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/safetensors.h"
#include "libafm/core/version.h"
#include "libafm/serve/model_header.h"
#include "libafm/serve/vocabulary.h"

namespace afm::serve {
namespace {

SafetensorsFile open_vocabulary(const std::filesystem::path& path, const Schema& schema) {
  auto file = SafetensorsFile::open(path);
  if (file.metadata_at("kind") != "afm-vocabulary") {
    fail<FormatError>("'{}' is not a vocabulary of libafm", path.string());
  }
  if (file.metadata_at("version") != std::to_string(kFormatVersion)) {
    fail<FormatError>("'{}': format version is {}, this libafm reads {}", path.string(), file.metadata_at("version"),
                      kFormatVersion);
  }
  file.verify();
  if (file.metadata_at("schema") != schema.fingerprint()) {
    fail<DataError>("'{}' belongs to another schema than the model", path.string());
  }
  return file;
}

// The ends of the values of a field, checked, as numbers.
std::vector<int64_t> ends_of(const SafetensorsFile& file, const FieldSpec& field, const TensorView& values) {
  const TensorView& view = file.at(field.name + ".ends");
  if (view.dtype != DType::kI64 || view.shape.size() != 1 || values.dtype != DType::kU8 || values.shape.size() != 1) {
    fail<FormatError>("'{}': the vocabulary of field '{}' must be lists of bytes and int64 ends", file.path().string(),
                      field.name);
  }
  std::vector<int64_t> ends(view.bytes.size() / sizeof(int64_t));
  if (!ends.empty()) std::memcpy(ends.data(), view.bytes.data(), view.bytes.size());
  int64_t begin = 0;
  for (const int64_t end : ends) {
    if (end < begin || end > static_cast<int64_t>(values.bytes.size())) {
      fail<FormatError>("'{}': the ends of field '{}' must rise up to {}, got {}", file.path().string(), field.name,
                        values.bytes.size(), end);
    }
    begin = end;
  }
  if (static_cast<int64_t>(ends.size()) + 1 != field.cardinality) {
    fail<DataError>("'{}': field '{}' has cardinality {}, its vocabulary has {} values", file.path().string(),
                    field.name, field.cardinality, ends.size());
  }
  return ends;
}

}  // namespace

void pack(const std::filesystem::path& model, const std::filesystem::path& dataset,
          const std::filesystem::path& packed) {
  const auto file = SafetensorsFile::open(model);
  const Schema schema = read_model_header(file).schema;
  file.verify();
  const auto vocabulary = open_vocabulary(dataset / "vocabulary.safetensors", schema);
  auto tensors = file.tensors();
  std::erase_if(tensors, [](const auto& item) { return item.first.starts_with("vocabulary."); });
  std::deque<std::vector<int32_t>> indexes;  // what the views point at
  for (const FieldSpec& field : schema.fields) {
    if (!field.has_ids() || field.hash_buckets > 0) continue;
    const TensorView& values = vocabulary.at(field.name + ".values");
    const std::vector<int64_t> ends = ends_of(vocabulary, field, values);
    const std::string_view text(reinterpret_cast<const char*>(values.bytes.data()), values.bytes.size());
    const auto& index = indexes.emplace_back(vocabulary_index(text, ends));
    tensors[vocabulary_tensor(field, "values")] = values;
    tensors[vocabulary_tensor(field, "ends")] = vocabulary.at(field.name + ".ends");
    tensors[vocabulary_tensor(field, "index")] = {
        DType::kI32, {static_cast<int64_t>(index.size())}, std::as_bytes(std::span(index))};
  }
  auto metadata = file.metadata();
  metadata["vocabulary"] = schema.fingerprint();
  write_safetensors(packed, std::move(metadata), tensors);
}

}  // namespace afm::serve
