#include <cub/device/device_radix_sort.cuh>

#include "libafm/cuda/table.h"

namespace afm::cuda {
namespace {

int bits_of(int64_t row_count) {
  int bits = 1;
  while (bits < 32 && (row_count - 1) >> bits > 0) ++bits;
  return bits;
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

}  // namespace afm::cuda
