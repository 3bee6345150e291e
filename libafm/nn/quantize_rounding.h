#pragma once

// Private: rounding to integers, twice with one meaning, bit by bit. round_with_aten serves every device and float32
// and float64 with a few operations on the whole tensor; round_with_kernels serves float32 on the CPU.

#include "libafm/nn/quantize.h"

namespace afm::nn {

double scale_divisor(Bits bits);  // what max |x| is divided by before it is rounded up to a bfloat16

// Where the elements belong. A group of a column is cut into pieces of some hundred rows: on a GPU, a maximum over a
// million elements into one place would wait for itself a million times.
struct GroupIndex {
  at::Tensor piece;  // [elements] int64
  at::Tensor group;  // [pieces] int64
};
GroupIndex group_index(const ScaleGroups& groups, at::Device device);
bool are_of_a_matrix(const ScaleGroups& groups);  // these need no index

struct Rounded {
  at::Tensor codes;   // whole numbers in the dtype of x; [elements], or [rows, columns] for the groups of a matrix
  at::Tensor scale;   // [count] float32, each a bfloat16
  at::Tensor spread;  // scale in the dtype of x, broadcasts to codes
};
// x must not be empty; the index is on its device.
Rounded round_with_aten(const at::Tensor& x, Bits bits, const ScaleGroups& groups, const GroupIndex& index);

void round_with_kernels(const float* x, Bits bits, const ScaleGroups& groups, float* y);

}  // namespace afm::nn
