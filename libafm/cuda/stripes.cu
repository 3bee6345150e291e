#include "libafm/cuda/stripes.h"

#include <algorithm>

#include "libafm/cuda/shapes.cuh"

namespace afm::cuda {
namespace {

constexpr int kSumColumns = 32, kSumParts = 16, kWideThreads = 256;
constexpr int64_t kFewParts = 32, kManyColumns = 16'384;
constexpr int64_t kMostStripes = 264, kRowsPerStripe = 16;

__global__ void __launch_bounds__(kSumColumns* kSumParts)
    sum_parts_kernel(const float* parts, int64_t stripes, int64_t stride, int64_t columns, float* to) {
  __shared__ float sums[kSumParts][kSumColumns];
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kSumColumns + threadIdx.x;
  float sum = 0;
  if (column < columns) {
#pragma unroll 8
    for (int64_t stripe = threadIdx.y; stripe < stripes; stripe += kSumParts) sum += parts[stripe * stride + column];
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || column >= columns) return;
  for (int part = 1; part < kSumParts; ++part) sum += sums[part][threadIdx.x];
  to[column] = sum;
}

// For few parts of many columns: a thread per column.
__global__ void __launch_bounds__(kWideThreads)
    sum_wide_parts_kernel(const float* parts, int64_t stripes, int64_t stride, int64_t columns, float* to) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWideThreads + threadIdx.x;
  if (column >= columns) return;
  float sum = 0;
#pragma unroll 8
  for (int64_t stripe = 0; stripe < stripes; ++stripe) sum += parts[stripe * stride + column];
  to[column] = sum;
}

}  // namespace

int64_t stripes_of(int64_t rows) { return std::clamp<int64_t>(rows / kRowsPerStripe, 1, kMostStripes); }

size_t parts_bytes(int64_t rows, int64_t columns) {
  return static_cast<size_t>(stripes_of(rows) * columns) * sizeof(float);
}

Status sum_parts(const float* parts, int64_t stripes, int64_t stride, int64_t columns, float* to, Stream stream) {
  if (stripes <= kFewParts && columns >= kManyColumns) {
    sum_wide_parts_kernel<<<blocks_for(columns, kWideThreads), kWideThreads, 0, stream>>>(parts, stripes, stride,
                                                                                          columns, to);
    return cudaGetLastError();
  }
  const dim3 block(kSumColumns, kSumParts);
  sum_parts_kernel<<<blocks_for(columns, kSumColumns), block, 0, stream>>>(parts, stripes, stride, columns, to);
  return cudaGetLastError();
}

}  // namespace afm::cuda
