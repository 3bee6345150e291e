#include "libafm/serve/vocabulary.h"

#include <bit>
#include <cstring>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/hash.h"

namespace afm::serve {
namespace {

// A file may be written by anyone, so nothing in it is aligned for certain.
template <typename Number>
Number number_at(std::span<const std::byte> numbers, uint64_t place) {
  Number number;
  std::memcpy(&number, numbers.data() + place * sizeof(Number), sizeof(Number));
  return number;
}

std::span<const std::byte> list_of(const SafetensorsFile& file, const std::string& name, DType dtype) {
  const TensorView& view = file.at(name);
  if (view.dtype != dtype || view.shape.size() != 1) {
    fail<FormatError>("'{}': tensor '{}' must be a list of {}", file.path().string(), name, name_of(dtype));
  }
  return view.bytes;
}

}  // namespace

std::string vocabulary_tensor(const FieldSpec& field, std::string_view part) {
  return fmt::format("vocabulary.{}.{}", field.name, part);
}

StoredVocabulary::StoredVocabulary(const SafetensorsFile& file, const FieldSpec& field)
    : hash_buckets_(field.hash_buckets) {
  if (hash_buckets_ > 0) return;
  values_ = list_of(file, vocabulary_tensor(field, "values"), DType::kU8);
  ends_ = list_of(file, vocabulary_tensor(field, "ends"), DType::kI64);
  index_ = list_of(file, vocabulary_tensor(field, "index"), DType::kI32);
  count_ = static_cast<int64_t>(ends_.size() / sizeof(int64_t));
  if (count_ + 1 != field.cardinality) {
    fail<FormatError>("'{}': field '{}' has cardinality {}, its vocabulary has {} values", file.path().string(),
                      field.name, field.cardinality, count_);
  }
  const uint64_t places = index_.size() / sizeof(int32_t);
  if (!std::has_single_bit(places)) {
    fail<FormatError>("'{}': tensor '{}' must have a power of two of places, got {}", file.path().string(),
                      vocabulary_tensor(field, "index"), places);
  }
  mask_ = places - 1;
}

std::string_view StoredVocabulary::value_of(int64_t id) const {
  const auto size = static_cast<int64_t>(values_.size());
  const int64_t begin = id == 1 ? 0 : number_at<int64_t>(ends_, static_cast<uint64_t>(id - 2));
  const int64_t end = number_at<int64_t>(ends_, static_cast<uint64_t>(id - 1));
  if (begin < 0 || end < begin || end > size) return {};  // of a damaged file that nobody verified
  return {reinterpret_cast<const char*>(values_.data()) + begin, static_cast<std::size_t>(end - begin)};
}

int32_t StoredVocabulary::id_of(std::string_view value) const {
  if (value.empty()) return 0;
  const uint64_t hash = hash_of(value);
  if (hash_buckets_ > 0) return static_cast<int32_t>(1 + hash % static_cast<uint64_t>(hash_buckets_));
  for (uint64_t step = 0; step < index_.size() / sizeof(int32_t); ++step) {
    const auto id = number_at<int32_t>(index_, (hash + step) & mask_);
    if (id < 1 || id > count_) return 0;
    if (value_of(id) == value) return id;
  }
  return 0;
}

std::vector<int32_t> vocabulary_index(std::string_view values, std::span<const int64_t> ends) {
  const uint64_t places = std::bit_ceil(1 + ends.size() + ends.size() / 3);
  std::vector<int32_t> index(places, 0);
  int64_t begin = 0;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    const auto value = values.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(ends[i] - begin));
    uint64_t place = hash_of(value) & (places - 1);
    while (index[place] != 0) place = (place + 1) & (places - 1);
    index[place] = static_cast<int32_t>(i + 1);
    begin = ends[i];
  }
  return index;
}

}  // namespace afm::serve
