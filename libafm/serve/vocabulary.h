#pragma once

// Private: the values of a field as a model file carries them once it is packed (pack.h). For a field with a
// vocabulary of n values:
//   vocabulary.<field>.values  U8   the bytes of all values, in id order from id 1
//   vocabulary.<field>.ends    I64 [n]  where each ends
//   vocabulary.<field>.index   I32 [2^m], at least 4/3 n  a hash table of ids, 0 = empty: a value lies at or behind
//                              xxh3(value) mod 2^m, before the next empty place
// Opening reads none of it, and a lookup touches a few cache lines of the file.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "libafm/core/safetensors.h"
#include "libafm/data/schema.h"

namespace afm::serve {

class StoredVocabulary {
 public:
  StoredVocabulary() = default;  // knows no value
  // A field with ids of a packed file, which must outlive it. Throws FormatError for tensors that do not fit the field.
  StoredVocabulary(const SafetensorsFile& file, const FieldSpec& field);

  // The id of a value of a training row; 0 for any other and for the empty one. Never out of the field's range,
  // whatever the file holds.
  int32_t id_of(std::string_view value) const;

 private:
  std::string_view value_of(int64_t id) const;

  int64_t hash_buckets_ = 0;
  std::span<const std::byte> values_, ends_, index_;
  int64_t count_ = 0;  // of values
  uint64_t mask_ = 0;  // places of the index - 1
};

// Values as a vocabulary file holds them, ready to be indexed. `ends` rise up to the size of `values`.
std::vector<int32_t> vocabulary_index(std::string_view values, std::span<const int64_t> ends);

std::string vocabulary_tensor(const FieldSpec& field, std::string_view part);  // "vocabulary.<field>.<part>"

}  // namespace afm::serve
