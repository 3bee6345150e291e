#pragma once

// Private: from ids and dense features to the row of features that the layers read, with what needs no layer: the
// first-order terms and the interaction of the fields. Of all fields of a model, or of some of them (Note [Shares]).

#include <cstdint>
#include <string>
#include <vector>

#include "libafm/serve/kernels.h"
#include "libafm/serve/scratch.h"
#include "libafm/serve/stored_embedding.h"
#include "libafm/serve/stored_layer.h"

namespace afm::serve {

// Note [Shares]
// A feature row is a sum over disjoint fields for all that reads it first: the first layers, the first-order terms, and
// the sum of the fields that the factorization machine needs, since sum_{i<j} <e_i, e_j> over all fields is that of one
// part, that of the other, and <sum of one, sum of the other>. So the fields of a model may be split in two: what those
// of a user amount to is computed once and enters the rows of the items as a constant, as the bias of the first layers,
// and as one more field, the "carried" one.

// How fields meet without a layer.
enum class Pairs {
  kNone,
  kValues,   // factorization machine over embeddings [F, D]
  kLatents,  // over latents of unequal rank, which share an orthonormal basis
  kDecoded,  // over latents, each field through its own basis
};

// What reads features: the MLP, the cross network, and first-order terms that are not linear.
inline constexpr int kReaders = 3;
inline constexpr int kMlp = 0, kCross = 1, kWide = 2;

struct Field {
  int64_t slots = 1;
  bool multi = false;
  bool presence = false;  // one more coordinate: whether a slot is filled
  int64_t column = 0;     // first one in the row of features
  Matrix decoder = {};    // [decoded, k] of a field that goes through its basis
  std::vector<float> offset = {};
};

// The weights by which a model reads the features of one part of its fields.
struct Features {
  std::vector<Field> fields;
  std::vector<FieldPlace> places;        // of the fields: first slot, and column in the row of features, or of latents
  std::vector<std::string> names;        // of the fields
  std::vector<int32_t> lowest, highest;  // [S] ids allowed
  int64_t slots = 0, dense = 0;
  int64_t id_width = 0, width = 0;  // columns of fields with ids; and of dense features behind them
  int64_t dim = 0;                  // D
  bool expands = false, joint = false;
  int64_t widest = 0;   // columns of a field, at most
  int64_t latents = 0;  // columns of all fields as they are stored, where they are decoded

  Pairs pairs = Pairs::kNone;
  int64_t sum_width = 0;       // of the sum over fields: D, or the largest rank
  int64_t carried = 0;         // floats before a row of features: the carried field
  std::vector<int64_t> ranks;  // kLatents: of the carried field, if there is one, and of the others; kDecoded
  std::vector<float> basis;    // kDecoded, as DecodedFields have it

  std::vector<float> linear;  // weights of the columns from linear_begin
  int64_t linear_begin = 0;
  Matrix first[kReaders];  // first layers; of no size where there is none

  int64_t linear_scratch = 0;  // floats that any of its matrices asks for

  std::vector<Columns> columns;  // where the columns of the part lie in a row of all fields
};

// What the other part of a split amounts to; nothing for all fields.
struct Share {
  float constant = 0;
  const float* pairs = nullptr;       // [sum_width], the sum over its fields
  const float* first[kReaders] = {};  // biases of the first layers; null: their own
};

struct FeatureRows {
  const int32_t* ids = nullptr;  // [rows, S]
  const float* dense = nullptr;  // [rows, Q]
  int64_t rows = 0;
};

// Throws DataError for the first id that is out of range.
void check_ids(const Features& features, const FeatureRows& input);

// Floats of scratch that read_features needs.
int64_t feature_scratch(const Features& features);

// x [rows, width] by rows of `stride`, with `carried` floats before each row; terms[r] = share.constant + first-order
// terms + pairs. x needs one float behind the width.
void read_features(const Kernels& kernels, const Features& features, const FeatureRows& input, const Share& share,
                   float* x, int64_t stride, float* terms, Scratch scratch);

// The sum over the fields of a row of features, [sum_width]; what Share::pairs of the other part is.
void sum_fields(const Kernels& kernels, const Features& features, const float* x, float* sum);

}  // namespace afm::serve
