#pragma once

// Private: the rules that tensors must keep at the doors of this room. Each throws std::invalid_argument with one
// sentence.

#include <cstdint>
#include <initializer_list>

#include <ATen/core/Tensor.h>

namespace afm {

// Defined, floating point, and of this shape; -1 stands for any size.
void require_floats(const char* what, const at::Tensor& tensor, std::initializer_list<int64_t> shape);

// In pieces, so that nothing of the tensor's size is made; waits for the device once.
bool all_finite(const at::Tensor& tensor);

void require_finite(const char* what, const at::Tensor& tensor);

void require_rank(const char* what, int64_t k, int64_t largest);

// Rows that are brought to float64 at a time: their copy stays below 64 MB (a single row excepted), on a CPU
// usually in the cache.
int64_t rows_per_chunk(int64_t columns, at::Device device = at::kCPU);

}  // namespace afm
