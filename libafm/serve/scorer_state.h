#pragma once

// Private: what a scorer and its copies share.

#include <memory>

#include "libafm/serve/blueprint.h"
#include "libafm/serve/request.h"
#include "libafm/serve/scorer.h"

namespace afm::serve {

struct ScorerState {
  ScorerState(const SafetensorsFile& mapped, const ScorerOptions& options);
  ScorerState(const ScorerState&) = delete;
  ScorerState& operator=(const ScorerState&) = delete;

  StoredTensors tensors;  // the table stays in the file
  ModelHeader header;
  StoredEmbedding embedding;
  Program program;
  Features features;                              // of all fields
  std::unique_ptr<const RequestEncoder> encoder;  // null where the file is not packed
  Simd simd = Simd::kPortable;
  const Kernels* kernels = nullptr;
  int64_t scratch = 0;  // floats
  int64_t golden_rows = 0;
  int64_t file_bytes = 0, prepared_bytes = 0;
};

// logits [rows]. Throws DataError for an id out of range.
void score_rows(const ScorerState& state, const FeatureRows& rows, float* logits);

// Scores the golden rows of a file and returns how many there are. Throws FormatError when a logit is another.
int64_t check_golden_rows(const ScorerState& state);

void apply_sigmoid(float* logits, int64_t count);

}  // namespace afm::serve
