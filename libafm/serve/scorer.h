#pragma once

// Scores a model file without LibTorch: every model of models/, dense, factorized or folded, of floats, int8 or int4.
//
//   const auto scorer = afm::serve::Scorer::open("clicks.safetensors");
//   scorer.probabilities(ids, dense, rows, out);          // ids [rows, S], dense [rows, Q] -> out [rows]
//
// Opening checks everything that the file says, prepares the weights and scores the file's golden rows; what is wrong
// is an error then, never later. A scorer does not change: any number of threads may use one, or copies of it, which
// share the weights. A thread's first call allocates its scratch memory; after that no call allocates.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "libafm/data/schema.h"
#include "libafm/nn/rank_plan.h"
#include "libafm/serve/simd.h"

namespace afm::serve {

struct Value;          // one raw value of a request: libafm/serve/request.h
class RequestEncoder;  // raw values to ids: libafm/serve/request.h
class CandidateScorer;
struct ScorerState;     // private
struct CandidateState;  // private

struct ScorerOptions {
  // The instructions to use, none = the best that this processor has. One that it lacks is a std::invalid_argument.
  std::optional<Simd> simd = std::nullopt;
  // Compares the checksum of the file, which reads all of it once. Without, tables are read where rows ask for them.
  bool verify = true;
  bool operator==(const ScorerOptions&) const = default;
};

class AFM_SERVE_EXPORT Scorer {
 public:
  // Throws IoError (cannot be read) or FormatError: no model file, damaged, written by a newer libafm, tensors that do
  // not fit the model, or golden rows whose logits come out wrong, which a scorer built or compiled wrongly would give.
  static Scorer open(const std::filesystem::path& path, const ScorerOptions& options = {});

  // Row-major ids [rows, S], local to their field, an empty slot of a multi-valued field being -1, and dense [rows, Q],
  // not read when Q is 0 -> logits [rows]. Throws DataError for an id out of range; logits are then undefined.
  void score(const int32_t* ids, const float* dense, int64_t rows, float* logits) const;
  // The same, as probabilities of a click: 1 / (1 + exp(-logit)).
  void probabilities(const int32_t* ids, const float* dense, int64_t rows, float* out) const;

  // Many items for one user: see below. `user_fields` are indices in schema().fields, each once, in any order.
  CandidateScorer candidates(std::span<const int64_t> user_fields) const;

  // The probability of one request of raw values, one per field of the schema, in its order. Throws DataError when the
  // file holds no vocabulary (afm pack), or a value is of the wrong kind.
  float score(std::span<const Value> request) const;
  // The same for a JSON object by field names. A field that is left out is a missing value; an unknown one is refused.
  float score_json(std::string_view request) const;
  // Null when the file holds no vocabulary.
  const RequestEncoder* encoder() const;

  const Schema& schema() const;
  std::string_view model() const;  // "deepfm"
  const RankPlan& plan() const;
  Simd simd() const;
  int64_t slot_count() const;   // S
  int64_t dense_count() const;  // Q
  int64_t golden_rows() const;  // rows of the file that were checked; 0 when it has none
  int64_t file_bytes() const;
  int64_t prepared_bytes() const;  // memory of the weights that do not stay in the file

 private:
  std::shared_ptr<const ScorerState> state_;
};

// Scores many items for one user. The user's share of the first layer, of the first-order terms and of the interaction
// is computed once per call, so that an item costs what its own fields cost. Made once by Scorer::candidates, which
// prepares a second copy of the first layers, split in two; the same rules on threads and memory.
class AFM_SERVE_EXPORT CandidateScorer {
 public:
  // user_ids [S_u], user_dense [Q_u]: the slots and dense features of the user's fields, in schema order; item_ids
  // [items, S - S_u], item_dense [items, Q - Q_u]: those of all other fields -> logits [items], equal to Scorer::score
  // on the joined rows but for the order of sums. Throws DataError for an id out of range.
  void score(const int32_t* user_ids, const float* user_dense, const int32_t* item_ids, const float* item_dense,
             int64_t items, float* logits) const;
  void probabilities(const int32_t* user_ids, const float* user_dense, const int32_t* item_ids, const float* item_dense,
                     int64_t items, float* out) const;

  int64_t user_slots() const;  // S_u
  int64_t user_dense() const;  // Q_u
  int64_t item_slots() const;  // S - S_u
  int64_t item_dense() const;  // Q - Q_u

 private:
  friend class Scorer;
  std::shared_ptr<const CandidateState> state_;
};

}  // namespace afm::serve
