#pragma once

// Weights as small integers times a scale, trained with the rounding in the loop. Symmetric, one scale per group of
// elements, L = 127 (int8) or 7 (int4):
//   scale = the least bfloat16 for which max |x| / scale is at most 127.49 (int8) or 7 (int4); 0 for a group of zeros
//   code  = x / scale rounded half to even, in [-L, L]
//   value = code * scale, exact in float32
// The largest entry of a group has the code L or -L, always: so nothing is more than scale / 2 away, and rounding
// values again gives the same codes and scales, bit by bit. (127.49, not 127: a bfloat16 has 8 bits, and a scale just
// above max |x| / 127 would leave some groups with 126 as their largest code.) A group whose scale would be below
// 2^-126 is zero. A group that holds NaN or an infinity becomes NaN.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/nn/rank_plan.h"

namespace afm::nn {

// `rows` rows of `width` elements, `stride` apart, from element `start` of a flat tensor: a group of its own for each
// row, or for each column; the groups are numbered from first_group.
struct ScaleBlock {
  int64_t start = 0, rows = 0, stride = 0, width = 0;
  ScaleBy by = ScaleBy::kRow;
  int64_t first_group = 0;
};

// Which elements of a tensor, flattened, share a scale. The blocks cover each element once. Blocks may share groups.
struct ScaleGroups {
  std::vector<ScaleBlock> blocks = {};
  int64_t elements = 0;
  int64_t count = 0;  // groups
};
ScaleGroups matrix_groups(int64_t rows, int64_t columns, ScaleBy by);

int64_t largest_code(Bits bits);                             // 127 or 7
int64_t stored_bytes(Bits bits, const ScaleGroups& groups);  // of codes and scales in a file

// The values that `x` (float32 or float64, any shape) is rounded to, of the same shape, on any device. The gradient
// passes unchanged (straight-through).
at::Tensor fake_quantize(const at::Tensor& x, Bits bits, const ScaleGroups& groups);

// As a file holds them. codes: int8 [elements], or for int4 uint8 [(elements + 1) / 2]: element 2i in the low four bits
// of byte i and 2i + 1 in the high ones, two's complement, an unused half is 0. scale: bfloat16 [count].
struct StoredIntegers {
  at::Tensor codes, scale;  // CPU
};
StoredIntegers store_integers(const at::Tensor& x, Bits bits, const ScaleGroups& groups);
// float32 [elements], CPU: bitwise what fake_quantize gave for float32. Throws FormatError for a wrong dtype or length,
// a code out of range, or a negative scale.
at::Tensor load_integers(const StoredIntegers& stored, Bits bits, const ScaleGroups& groups);

// The scale that changes `matrix` [m, n] less: the smaller sum of squared differences, rows when they are equal.
ScaleBy choose_scale_by(const at::Tensor& matrix, Bits bits);

}  // namespace afm::nn
