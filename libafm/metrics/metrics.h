#pragma once

// How good a model is, from logits (float32 probabilities saturate and make ties; science.md 6.6).

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/data/dataset.h"
#include "libafm/nn/model.h"

namespace afm {

// Area under the ROC curve, ties averaged (Mann-Whitney). logits [N], labels [N] in {0, 1}, any device, computed there
// in float64. Throws DataError when a logit is NaN or infinite, or when only one class is present.
double auc(const at::Tensor& logits, const at::Tensor& labels);
// Mean of softplus(s) - t s. The same errors, except that one class is enough.
double logloss(const at::Tensor& logits, const at::Tensor& labels);

// Of the values of a field, the share that has the unknown value's id 0: values that training did not count, rare and
// empty ones. Empty slots of a multi-valued field are no values. What grows after training needs a new preparation.
struct UnknownShare {
  std::string field;
  double share = 0.0;  // in [0, 1]; 0 for a field without a value
};
// One for each field with ids, in the order of the schema. Hashed fields have no unknown value but the empty one.
std::vector<UnknownShare> unknown_shares(const Dataset& dataset);

struct Metrics {
  double auc = 0.0;
  double logloss = 0.0;
  int64_t rows = 0;
  std::vector<UnknownShare> unknown;  // of the dataset
};

struct EvaluateOptions {
  int64_t batch_size = 10000;
  // Called after each batch with the rows done; may throw to stop.
  std::function<void(int64_t rows)> on_progress = {};
};

// Logits of every row in order, in evaluation mode, without gradient: [N], on the model's device. Throws DataError when
// the dataset's schema does not fit the model's.
at::Tensor predict(Model& model, const Dataset& dataset, const EvaluateOptions& options = {});
Metrics evaluate(Model& model, const Dataset& dataset, const EvaluateOptions& options = {});

// Throws DataError that says how the schemas differ.
void check_fits(const Schema& model, const Schema& dataset);

}  // namespace afm
