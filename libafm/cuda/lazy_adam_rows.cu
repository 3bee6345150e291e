#include "libafm/cuda/add_rows.cuh"
#include "libafm/cuda/lazy_adam.h"
#include "libafm/cuda/lazy_rows.cuh"
#include "libafm/cuda/slot_rows.cuh"

namespace afm::cuda {

Status step_adam_rows(const Table& table, const RowGradients& task, const LazyAdam& adam, Stream stream) {
  return add_rows<AdamRowWriter>(table, task, adam, stream);
}

Status step_adam_rows(const Table& table, const RowSlots& slots, bool interaction, const LazyAdam& adam,
                      Stream stream) {
  return write_slots<AdamRowWriter>(table, slots, interaction, adam, stream);
}

}  // namespace afm::cuda
