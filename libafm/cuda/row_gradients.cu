#include "libafm/cuda/add_rows.cuh"
#include "libafm/cuda/row_writer.cuh"
#include "libafm/cuda/table.h"

namespace afm::cuda {

size_t gradient_scratch(int64_t places, int dim) {
  if (places == 0) return 0;
  size_t blocks = 0;
  with_vector_shape(dim, [&](auto shape) {
    blocks = row_blocks<decltype(shape)>(places);
    return static_cast<Status>(cudaSuccess);
  });
  return blocks * (2 * sizeof(float) * static_cast<size_t>(dim + 1) + sizeof(uint32_t) + 1);
}

Status write_gradients(const Table& table, const RowGradients& task, float* gradient, Stream stream) {
  return add_rows<RowWriter>(table, task, {gradient, {}}, stream);
}

Status step_adagrad(const Table& table, const RowGradients& task, const Adagrad& adagrad, Stream stream) {
  return add_rows<RowWriter>(table, task, {nullptr, adagrad}, stream);
}

}  // namespace afm::cuda
