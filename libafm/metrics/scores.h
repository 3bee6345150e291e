#pragma once

// Private: one pass of a model over a dataset.

#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/metrics/metrics.h"
#include "libafm/nn/embedding.h"

namespace afm {

struct Scores {
  at::Tensor logits, labels;  // [N] each, on the model's device
};

Scores score(Model& model, const Dataset& dataset, const EvaluateOptions& options);

struct Quality {
  double auc = 0.0, logloss = 0.0;
};
// auc() and logloss() with one wait for the device, and their errors, but nullopt when a logit is not finite.
std::optional<Quality> quality_of(const Scores& scores);

// Throws std::invalid_argument unless a model gave one logit per row.
void check_logits(const Model& model, const at::Tensor& logits, int64_t rows);

// On a GPU the embeddings' check of ids waits for the device at each batch. The ids of a Dataset that fits the model
// were checked when it was opened, so the check is off within this scope.
class TrustedIds {
 public:
  explicit TrustedIds(Model& model);
  ~TrustedIds();
  TrustedIds(const TrustedIds&) = delete;
  TrustedIds& operator=(const TrustedIds&) = delete;

 private:
  std::vector<nn::EmbeddingImpl*> unchecked_;
};

}  // namespace afm
