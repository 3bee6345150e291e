#include "libafm/cuda/slot_rows.cuh"

namespace afm::cuda {

Status step_adagrad(const Table& table, const RowSlots& slots, bool interaction, const Adagrad& adagrad,
                    Stream stream) {
  return write_slots<RowWriter>(table, slots, interaction, {nullptr, adagrad}, stream);
}

}  // namespace afm::cuda
