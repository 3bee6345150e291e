#pragma once

// Private: one stored row of a flat table. No LibTorch.

#include <cstdint>

namespace afm::nn {

struct TouchedRow {
  int64_t number;    // of the stored row, counted over all fields and tiers
  int64_t start;     // its first element in the flat table
  int64_t size;      // its elements: values, then the wide weight
  int64_t gradient;  // first element of its gradient where a batch's are
};

}  // namespace afm::nn
