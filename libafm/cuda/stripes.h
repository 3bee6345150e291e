#pragma once

// Private: sums over the rows of a matrix. Blocks add up stripes of rows and leave `parts` [stripes, stride], of which
// the first `columns` columns count; a second launch adds these up in an order of its own: equal input, equal bits.

#include <cstddef>
#include <cstdint>

#include "libafm/cuda/status.h"

namespace afm::cuda {

int64_t stripes_of(int64_t rows);
size_t parts_bytes(int64_t rows, int64_t columns);
Status sum_parts(const float* parts, int64_t stripes, int64_t stride, int64_t columns, float* to, Stream stream);

}  // namespace afm::cuda
