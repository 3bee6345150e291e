#include "libafm/data/vocabulary.h"

#include <algorithm>
#include <span>

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/hash.h"

namespace afm {
namespace {

std::span<const std::byte> bytes_of(const SafetensorsFile& file, const std::string& name, DType dtype) {
  const auto& view = file.at(name);
  if (view.dtype != dtype || view.shape.size() != 1) {
    fail<FormatError>("{}: {} must be a list of {}", file.path().string(), name, name_of(dtype));
  }
  return view.bytes;
}

// Copied: in a file that another program wrote, numbers may lie at any byte.
std::vector<int64_t> numbers_of(const SafetensorsFile& file, const std::string& name) {
  const auto bytes = bytes_of(file, name, DType::kI64);
  std::vector<int64_t> numbers(bytes.size() / sizeof(int64_t));
  std::ranges::copy(bytes, std::as_writable_bytes(std::span(numbers)).begin());
  return numbers;
}

template <typename Value>
at::Tensor tensor_of(const std::vector<Value>& values, at::ScalarType dtype) {
  const auto size = static_cast<int64_t>(values.size());
  return at::from_blob(const_cast<Value*>(values.data()), {size}, dtype).clone();
}

}  // namespace

std::string hash_of_values(const std::vector<std::string>& values) {
  std::string text;
  for (const auto& value : values) text += std::to_string(value.size()) + ':' + value;
  return hex_hash_of(text);
}

void check_vocabulary(const FieldSpec& spec, const Vocabulary& vocabulary) {
  if (vocabulary.values.size() != vocabulary.counts.size()) {
    fail<DataError>("field '{}': {} values have {} counts", spec.name, vocabulary.values.size(),
                    vocabulary.counts.size());
  }
  if (spec.hash_buckets > 0) {
    if (!vocabulary.values.empty()) fail<DataError>("field '{}' is hashed and has no vocabulary", spec.name);
    return;
  }
  if (static_cast<int64_t>(vocabulary.values.size()) + 1 != spec.cardinality) {
    fail<DataError>("field '{}' has cardinality {}, its vocabulary has {} values", spec.name, spec.cardinality,
                    vocabulary.values.size());
  }
  if (!spec.vocabulary.empty() && spec.vocabulary != hash_of_values(vocabulary.values)) {
    fail<DataError>("field '{}': the vocabulary is not the one that the schema was counted with", spec.name);
  }
}

void put_vocabulary(TensorMap& tensors, const std::string& name, const Vocabulary& vocabulary) {
  std::vector<uint8_t> bytes;
  std::vector<int64_t> ends;
  for (const auto& value : vocabulary.values) {
    bytes.insert(bytes.end(), value.begin(), value.end());
    ends.push_back(static_cast<int64_t>(bytes.size()));
  }
  tensors[name + ".values"] = tensor_of(bytes, at::kByte);
  tensors[name + ".ends"] = tensor_of(ends, at::kLong);
  tensors[name + ".counts"] = tensor_of(vocabulary.counts, at::kLong);
}

Vocabulary read_vocabulary(const SafetensorsFile& file, const std::string& name) {
  const auto bytes = bytes_of(file, name + ".values", DType::kU8);
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  const auto ends = numbers_of(file, name + ".ends");
  Vocabulary vocabulary{.values = {}, .counts = numbers_of(file, name + ".counts")};
  int64_t begin = 0;
  for (const auto end : ends) {
    if (end < begin || end > static_cast<int64_t>(bytes.size())) {
      fail<FormatError>("{}: {}.ends must rise up to {}, got {}", file.path().string(), name, bytes.size(), end);
    }
    vocabulary.values.emplace_back(text + begin, static_cast<std::size_t>(end - begin));
    begin = end;
  }
  return vocabulary;
}

}  // namespace afm
