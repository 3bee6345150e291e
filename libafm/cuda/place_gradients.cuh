#pragma once

// Private: the gradient that one place of a batch leaves for its row.

#include "libafm/cuda/row_writer.cuh"
#include "libafm/cuda/shapes.cuh"
#include "libafm/cuda/table.h"

namespace afm::cuda {

// What may be read in vectors.
struct Aligned {
  bool input, sums;
};

inline bool is_aligned(const void* pointer, int values, Element element) {
  const int bytes = element == Element::kFloat ? 4 : 2;
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(values * bytes) == 0;
}

inline Aligned aligned_parts(const Table& table, const RowGradients& task) {
  const bool fours = table.dim % 4 == 0;
  return {fours && task.input_stride % 4 == 0 && is_aligned(task.input, 4, task.element),
          fours && is_aligned(task.sums, 4, Element::kFloat)};
}

// Columns [d, d + kColumns) of place [sample, field]; `to` is zero before.
template <typename In, int kColumns>
__device__ void load_place(const Table& table, const RowGradients& task, Aligned aligned, int64_t sample, int field,
                           int d, Sums<kColumns>& to) {
  if (task.score != nullptr) to.score = task.score[sample];
  if (task.input != nullptr) {
    const In* input = static_cast<const In*>(task.input) + sample * task.input_stride + field * table.dim;
    load_values<kColumns>(input, d, table.dim, aligned.input, to.values);
  }
  if (task.sums == nullptr) return;
  float sum[kColumns] = {};
  load_values<kColumns>(task.sums + sample * table.dim, d, table.dim, aligned.sums, sum);
#pragma unroll
  for (int c = 0; c < kColumns; ++c) to.values[c] += to.score * sum[c];
}

}  // namespace afm::cuda
