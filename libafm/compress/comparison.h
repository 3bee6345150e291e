#pragma once

// What compression did: quality, size and speed, before and after, on the same rows.
//
//   std::cout << comparison_to_markdown(compare(*base, *small, test_set));

#include <cstdint>
#include <string>

#include "libafm/data/dataset.h"
#include "libafm/metrics/metrics.h"
#include "libafm/nn/model.h"

namespace afm {

struct ModelReport {
  Metrics metrics;
  int64_t parameters = 0, bytes = 0;  // bytes: parameters and buffers
  // Forward in evaluation mode in batches of 4096 (all rows where there are fewer) that lie on the model's device
  // already: the median over the batches, at least 5.
  double microseconds_per_row = 0.0;
};

struct Comparison {
  ModelReport before, after;
  double mean_absolute_difference = 0.0;  // of the two probabilities, over rows
  double mean_kl = 0.0;                   // KL(before || after), nats per row, from logits in float64
  double flipped = 0.0;                   // share of rows on the other side of probability 0.5
};

// Throw DataError when the dataset's schema does not fit a model's, has labels of one class only, or a logit is not
// finite.
ModelReport report_on(Model& model, const Dataset& dataset);
Comparison compare(Model& before, Model& after, const Dataset& dataset);
// Comparison::mean_kl alone, on rows of a dataset as logits_of() takes them.
double mean_kl(Model& before, Model& after, const Dataset& dataset, int64_t max_rows = 0);

// An object with "before", "after" (auc, logloss, rows, parameters, bytes, microseconds_per_row), "ratio" (parameters
// before / after), and the three differences by their names above.
std::string comparison_to_json(const Comparison& comparison);
// A table with a row per quantity, and a sentence on the differences.
std::string comparison_to_markdown(const Comparison& comparison);

}  // namespace afm
