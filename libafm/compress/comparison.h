#pragma once

// What compression did: quality, size and speed, before and after, on the same rows.

#include <cstdint>
#include <string>

#include "libafm/data/dataset.h"
#include "libafm/metrics/metrics.h"
#include "libafm/nn/model.h"

namespace afm {

struct ModelReport {
  Metrics metrics;
  int64_t parameters = 0, bytes = 0;
  double microseconds_per_row = 0.0;   // forward in batches of 4096 on the model's device, median of the batches
};

struct Comparison {
  ModelReport before, after;
  double mean_absolute_difference = 0.0;   // of the two probabilities, over rows
  double mean_kl = 0.0;                    // KL(before || after), nats per row
  double flipped = 0.0;                    // share of rows on the other side of 0.5
};

ModelReport report_on(Model& model, const Dataset& dataset);
Comparison compare(Model& before, Model& after, const Dataset& dataset);
std::string comparison_to_json(const Comparison& comparison);
std::string comparison_to_markdown(const Comparison& comparison);

}  // namespace afm
