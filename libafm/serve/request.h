#pragma once

// Raw values to ids and dense features, from the vocabulary that a packed model file carries: the same encoding as
// afm::Encoder (libafm/data/encoder.h), without LibTorch.
//
//   const auto scorer = afm::serve::Scorer::open("packed.safetensors");
//   scorer.score(std::vector<Value>{"user 7", "item 12", 3.5});           // one per field, in schema order
//   scorer.score_json(R"({"user": "user 7", "item": "item 12", "price": 3.5})");

#include <concepts>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "libafm/data/schema.h"
#include "libafm/serve/simd.h"

namespace afm {
class SafetensorsFile;
}

namespace afm::serve {

// Missing, a text or a number. Texts are not copied.
struct Value {
  enum class Kind { kMissing, kText, kNumber };

  Value() = default;
  template <typename Text>
  requires std::convertible_to<const Text&, std::string_view> Value(const Text& value)
      : kind(Kind::kText), text(value) {}
  Value(double value) : kind(Kind::kNumber), number(value) {}

  Kind kind = Kind::kMissing;
  std::string_view text;
  double number = 0.0;
};

// Safe to use from many threads. What each kind of field makes of a value:
//   categorical  the id of the text; a number is the text that it is written as, 7 or 2.5; empty and missing: id 0
//   multi        the ids of the parts of the text, split at the field's separator; empty parts are dropped, and parts
//                beyond its slots; unknown parts get id 0
//   numeric      the number; a text is read as one; empty, missing and NaN take the field's fill
class AFM_SERVE_EXPORT RequestEncoder {
 public:
  // The vocabulary of a packed model file, which stays mapped. Throws FormatError for tensors that do not fit `schema`.
  RequestEncoder(const SafetensorsFile& file, const Schema& schema);
  ~RequestEncoder();
  RequestEncoder(RequestEncoder&&) noexcept;
  RequestEncoder& operator=(RequestEncoder&&) noexcept;

  // Whether a model file is packed.
  static bool is_in(const SafetensorsFile& file);

  // One value per field, in schema order -> ids [S], dense [Q]. Throws DataError for another number of values, a text
  // that is no number, an infinity, or a number that is beyond float32 after its transform. Allocates nothing.
  void encode(std::span<const Value> request, int32_t* ids, float* dense) const;
  // The same for a JSON object by field names. A key that is left out, and null, is a missing value; true and false are
  // the texts "true" and "false", or 1 and 0; a multi-valued field also takes a list. Throws DataError for what is not
  // JSON, an unknown or repeated key, and values of another kind.
  void encode_json(std::string_view request, int32_t* ids, float* dense) const;

  int64_t slot_count() const;   // S
  int64_t dense_count() const;  // Q

 private:
  struct State;
  std::unique_ptr<const State> state_;
};

}  // namespace afm::serve
