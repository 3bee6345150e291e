#pragma once

// Private: the embedding of a model file (nn/embedding.h), whose table stays in the file.

#include <cstdint>
#include <string>
#include <vector>

#include "libafm/serve/kernels.h"
#include "libafm/serve/model_header.h"
#include "libafm/serve/stored_tensors.h"

namespace afm::serve {

struct StoredField {
  std::string name;
  int64_t cardinality = 0;
  int64_t first_slot = 0, slots = 1;
  bool multi = false;     // slots may be empty
  int64_t width = 0;      // values of a row: D, or k_j
  int64_t basis_row = 0;  // first row of the field in `basis`
  std::vector<TierRows> tiers = {};
  FieldTable table = {};  // points into `tiers`, the file and the embedding
};

// REQUIRES: the file stays mapped. Movable: what `fields` point at moves along.
struct StoredEmbedding {
  std::vector<StoredField> fields;             // [F]
  int64_t dim = 0;                             // D
  int64_t decoded = 0;                         // columns of basis and offset: D, or D + 1 when joint
  bool folded = false;                         // rows are read as latents, without basis
  bool expands = false;                        // rows go through a basis
  bool joint = false;                          // the basis decodes the wide weight too
  std::vector<float> basis = {}, offset = {};  // [.., decoded], [F, decoded]; empty unless expands

  FloatTensor floats = {};               // the table, when it is of floats
  std::vector<float> column_scale = {};  // field after field
};

// `wide`: the model keeps first-order weights. Throws FormatError.
StoredEmbedding read_embedding(StoredTensors& tensors, const ModelHeader& header, bool wide);

}  // namespace afm::serve
