#pragma once

// Private: hands the sum of each row that has a slot to a writer, see Note [Rows by atomics].

#include "libafm/cuda/row_slots.h"
#include "libafm/cuda/row_writer.cuh"
#include "libafm/cuda/shapes.cuh"

namespace afm::cuda {
namespace {

constexpr int kSlotThreads = 256, kSlotBlocks = 132 * 8;  // which go on to further slots

template <typename Writer>
__global__ void __launch_bounds__(kSlotThreads)
    write_slots_kernel(const Table table, const typename Writer::Sink sink, const RowSlots slots, bool interaction) {
  constexpr int kLanes = Writer::kLanes, kColumns = Writer::kColumns;
  const int lane = threadIdx.x % kLanes;
  const Writer writer(table, sink, interaction);
  const uint32_t count = *slots.count, step = gridDim.x * (kSlotThreads / kLanes);
  for (uint32_t slot = (blockIdx.x * kSlotThreads + threadIdx.x) / kLanes; slot < count; slot += step) {
    const uint32_t row = slots.row_of[slot];
    typename Writer::State state;
    writer.read(row, state);
    float* values = slots.sums + static_cast<int64_t>(slot) * kLanes * kColumns + lane;
    Sums<kColumns> sums;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      sums.values[c] = values[c * kLanes];
      values[c * kLanes] = 0;
    }
    sums.score = slots.scores[slot];
    writer.write(row, sums, state);
    __syncwarp(lanes_mask<kLanes>());  // all lanes have read the score
    if (lane != 0) continue;
    slots.scores[slot] = 0;
    slots.slot_of[row] = kNoSlot;
  }
}

template <template <int, int> typename Writer>
Status write_slots(const Table& table, const RowSlots& slots, bool interaction, const typename Writer<1, 4>::Sink& sink,
                   Stream stream) {
  return with_vector_shape(table.dim, [&](auto shape) {
    using S = decltype(shape);
    write_slots_kernel<Writer<S::kLanes, S::kColumns>>
        <<<kSlotBlocks, kSlotThreads, 0, stream>>>(table, sink, slots, interaction);
    return static_cast<Status>(cudaGetLastError());
  });
}

}  // namespace
}  // namespace afm::cuda
