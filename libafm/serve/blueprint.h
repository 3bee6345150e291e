#pragma once

// Private: what a model file's tensors amount to, before it is arranged for the kernels. All that is constant in
// evaluation mode is folded into weights on the way.

#include <span>
#include <vector>

#include "libafm/serve/model_header.h"
#include "libafm/serve/program.h"
#include "libafm/serve/stored_embedding.h"
#include "libafm/serve/stored_layer.h"
#include "libafm/serve/stored_tensors.h"

namespace afm::serve {

using StoredChain = std::vector<StoredAffine>;

struct Blueprint {
  int64_t id_width = 0, width = 0;  // columns of fields with ids, and of all features
  StoredChain mlp, wide;
  Cross cross = Cross::kNone;
  std::vector<StoredChain> cross_layers;
  std::vector<float> shift, sum;  // as in Program
  StoredChain head;
  float constant = 0;
  std::vector<float> linear;  // [width], or empty
  Pairs pairs = Pairs::kNone;
  std::vector<float> interaction_basis;  // kDecoded: [id_width, D]
};

// Columns that a model reads of field j of the embedding.
int64_t columns_of(const StoredEmbedding& embedding, std::size_t j);
bool keeps_wide_weights(const ModelHeader& header);

// Takes every tensor but the embedding's. Throws FormatError.
Blueprint read_blueprint(StoredTensors& tensors, const ModelHeader& header, const StoredEmbedding& embedding);

Program program_of(const Blueprint& blueprint);

// The weights by which the fields `chosen` (one flag per field of the schema) are read. `carries`: their rows have a
// carried field, see Note [Shares]. REQUIRES: the embedding outlives them.
struct Choice {
  std::vector<bool> chosen;
  bool carries = false;
};
Features features_of(const Blueprint& blueprint, const ModelHeader& header, const StoredEmbedding& embedding,
                     const Choice& choice);

}  // namespace afm::serve
