#include <cub/block/block_radix_sort.cuh>
#include <cub/device/device_radix_sort.cuh>

#include "libafm/cuda/shapes.cuh"
#include "libafm/cuda/table.h"

namespace afm::cuda {
namespace {

int bits_of(int64_t row_count) {
  int bits = 1;
  while (bits < 32 && (row_count - 1) >> bits > 0) ++bits;
  return bits;
}

constexpr int kSortedPerThread = 8;

// A block sorts the ids of its field. Stable, and what lies behind the batch comes last: it has the largest key.
template <int kThreads>
__global__ void __launch_bounds__(kThreads)
    sort_field_kernel(const Table table, const uint32_t* rows, int batch, PlaceCode code, uint32_t* sorted_rows,
                      uint32_t* sorted_places) {
  using Sort = cub::BlockRadixSort<uint32_t, kThreads, kSortedPerThread, uint16_t>;
  __shared__ typename Sort::TempStorage scratch;
  const int field = static_cast<int>(blockIdx.x);
  const auto first = static_cast<uint32_t>(table.first_row[field]);
  const int bits = max(1, 64 - __clzll(table.highest[field]));
  uint32_t ids[kSortedPerThread];
  uint16_t samples[kSortedPerThread];
#pragma unroll
  for (int i = 0; i < kSortedPerThread; ++i) {
    const int sample = static_cast<int>(threadIdx.x) * kSortedPerThread + i;
    samples[i] = static_cast<uint16_t>(sample);
    ids[i] = sample < batch ? rows[static_cast<int64_t>(sample) * table.fields + field] - first : 0xffffffffU;
  }
  Sort(scratch).SortBlockedToStriped(ids, samples, 0, bits);
#pragma unroll
  for (int i = 0; i < kSortedPerThread; ++i) {
    const int rank = i * kThreads + static_cast<int>(threadIdx.x);
    if (rank >= batch) continue;
    const int64_t to = static_cast<int64_t>(field) * batch + rank;
    sorted_rows[to] = first + ids[i];
    sorted_places[to] = static_cast<uint32_t>(samples[i]) << code.field_bits | static_cast<uint32_t>(field);
  }
}

template <int kThreads>
Status launch_field_sort(const Table& table, const uint32_t* rows, int64_t batch, PlaceCode code, uint32_t* sorted_rows,
                         uint32_t* sorted_places, Stream stream) {
  sort_field_kernel<kThreads><<<static_cast<unsigned>(table.fields), kThreads, 0, stream>>>(
      table, rows, static_cast<int>(batch), code, sorted_rows, sorted_places);
  return cudaGetLastError();
}

}  // namespace

size_t sort_scratch(int64_t places, int64_t row_count) {
  size_t bytes = 0;
  const uint32_t* rows = nullptr;
  const uint32_t* from = nullptr;
  cub::DeviceRadixSort::SortPairs(nullptr, bytes, rows, static_cast<uint32_t*>(nullptr), from,
                                  static_cast<uint32_t*>(nullptr), static_cast<int>(places), 0, bits_of(row_count));
  return bytes;
}

Status sort_rows(const uint32_t* rows, const uint32_t* codes, int64_t places, int64_t row_count, void* scratch,
                 size_t scratch_bytes, uint32_t* sorted_rows, uint32_t* sorted_places, Stream stream) {
  return cub::DeviceRadixSort::SortPairs(scratch, scratch_bytes, rows, sorted_rows, codes, sorted_places,
                                         static_cast<int>(places), 0, bits_of(row_count), stream);
}

Status sort_fields(const Table& table, const uint32_t* rows, int64_t batch, PlaceCode code, uint32_t* sorted_rows,
                   uint32_t* sorted_places, Stream stream) {
  if (batch == 0) return cudaSuccess;
  constexpr int kThreads = kLargestFieldSort / kSortedPerThread;
  return 2 * batch <= kLargestFieldSort
             ? launch_field_sort<kThreads / 2>(table, rows, batch, code, sorted_rows, sorted_places, stream)
             : launch_field_sort<kThreads>(table, rows, batch, code, sorted_rows, sorted_places, stream);
}

}  // namespace afm::cuda
