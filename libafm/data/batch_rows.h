#pragma once

// Private: rows of batches whose three tensors are all present.

#include <cstdint>
#include <vector>

#include "libafm/data/batch.h"

namespace afm {

Batch slice_rows(const Batch& rows, int64_t begin, int64_t end);  // a view
Batch select_rows(const Batch& rows, const at::Tensor& index);    // a copy
Batch join_rows(const std::vector<Batch>& parts);                 // a copy

}  // namespace afm
