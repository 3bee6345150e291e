#include <algorithm>

#include "libafm/cuda/activation.h"
#include "libafm/cuda/shapes.cuh"
#include "libafm/cuda/stripes.h"

namespace afm::cuda {
namespace {

constexpr int kVectors = 64, kRowsAtOnce = 4;  // threads of a block: side by side, and rows that they work on
constexpr int kRowsPerWarp = 4;
// Rows whose loads are under way before a store: what is stored could be what the next load reads, so the compiler
// would not take the loads together.
constexpr int kLoads = 4;

struct ReluGate {
  __device__ static float through(float gradient, float gate) { return gate > 0 ? gradient : 0.0F; }
};
struct FactorGate {
  __device__ static float through(float gradient, float gate) { return gradient * gate; }
};

template <typename Gate, typename T, int kCount>
__global__ void __launch_bounds__(kVectors* kRowsAtOnce) gate_kernel(const GateGradient task, float* parts) {
  using V = Vector<T, kCount>;
  __shared__ float sums[kRowsAtOnce][kVectors * kCount + 1];
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * kVectors + threadIdx.x) * kCount;
  float sum[kCount] = {};
  if (column < task.columns) {
    const int64_t step = static_cast<int64_t>(gridDim.y) * kRowsAtOnce;
    for (int64_t row = blockIdx.y * kRowsAtOnce + threadIdx.y; row < task.rows; row += kLoads * step) {
      V gradients[kLoads], gates[kLoads];
#pragma unroll
      for (int u = 0; u < kLoads; ++u) {
        const int64_t at = min(row + u * step, task.rows - 1) * task.columns + column;
        gradients[u] = *reinterpret_cast<const V*>(static_cast<const T*>(task.incoming) + at);
        gates[u] = *reinterpret_cast<const V*>(static_cast<const T*>(task.gate) + at);
      }
#pragma unroll
      for (int u = 0; u < kLoads; ++u) {
        if (row + u * step >= task.rows) continue;
        V& gradient = gradients[u];
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
          store(&gradient.values[i], Gate::through(to_float(gradient.values[i]), to_float(gates[u].values[i])));
          sum[i] += to_float(gradient.values[i]);
        }
        *reinterpret_cast<V*>(static_cast<T*>(task.outgoing) + (row + u * step) * task.columns + column) = gradient;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) sums[threadIdx.y][threadIdx.x * kCount + i] = sum[i];
  __syncthreads();
  if (threadIdx.y > 0 || column >= task.columns) return;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    float total = 0;
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) total += sums[r][threadIdx.x * kCount + i];
    parts[blockIdx.y * task.columns + column + i] = total;
  }
}

template <typename Gate, typename T, int kCount>
Status launch_gate(const GateGradient& task, Stream stream) {
  auto* parts = static_cast<float*>(task.scratch);
  const auto stripes = static_cast<unsigned>(stripes_of(task.rows));
  const dim3 grid(blocks_for(task.columns, kVectors * kCount), stripes), block(kVectors, kRowsAtOnce);
  gate_kernel<Gate, T, kCount><<<grid, block, 0, stream>>>(task, parts);
  if (const auto status = cudaGetLastError(); status != cudaSuccess) return status;
  return sum_parts(parts, stripes, task.columns, task.columns, task.bias, stream);
}

bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

template <typename Gate>
Status gate_gradient(const GateGradient& task, Stream stream) {
  if (task.columns == 0) return cudaSuccess;
  return with_element(task.element, [&](auto element) {
    using T = decltype(element);
    constexpr int kWide = 16 / sizeof(T);
    const bool wide =
        task.columns % kWide == 0 && is_aligned(task.incoming) && is_aligned(task.gate) && is_aligned(task.outgoing);
    return wide ? launch_gate<Gate, T, kWide>(task, stream) : launch_gate<Gate, T, 1>(task, stream);
  });
}

constexpr int kRoundThreads = 256, kRoundedPerThread = 4, kArraysPerLaunch = 16;

struct RoundingList {
  Rounding arrays[kArraysPerLaunch];
};

// A row of blocks per array.
__global__ void __launch_bounds__(kRoundThreads) round_kernel(const RoundingList list) {
  const Rounding array = list.arrays[blockIdx.y];
  const int64_t step = static_cast<int64_t>(gridDim.x) * kRoundThreads;
  auto* to = static_cast<__nv_bfloat16*>(array.to);
#pragma unroll kRoundedPerThread
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kRoundThreads + threadIdx.x; i < array.count; i += step) {
    to[i] = __float2bfloat16(array.from[i]);
  }
}

// A warp per kRowsPerWarp rows, for which it reads the weight once.
template <typename T, int kCount>
__global__ void __launch_bounds__(kVectors* kRowsAtOnce) row_kernel(const Row task, float* y) {
  using V = Vector<T, kCount>;
  const int lane = threadIdx.x % kWarp;
  const int64_t warp = (static_cast<int64_t>(blockIdx.x) * kVectors * kRowsAtOnce + threadIdx.x) / kWarp;
  const int64_t first = warp * kRowsPerWarp;
  if (first >= task.rows) return;
  const T* x = static_cast<const T*>(task.x);
  float sums[kRowsPerWarp] = {};
  for (int64_t c = lane * kCount; c < task.columns; c += kWarp * kCount) {
    V values[kRowsPerWarp];
#pragma unroll
    for (int r = 0; r < kRowsPerWarp; ++r) {  // behind the last row, the last again
      values[r] = *reinterpret_cast<const V*>(x + min(first + r, task.rows - 1) * task.columns + c);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float weight = task.weight[c + i];
#pragma unroll
      for (int r = 0; r < kRowsPerWarp; ++r) sums[r] += to_float(values[r].values[i]) * weight;
    }
  }
#pragma unroll
  for (int r = 0; r < kRowsPerWarp; ++r) {
    for (int apart = kWarp / 2; apart > 0; apart /= 2) sums[r] += __shfl_xor_sync(0xffffffffU, sums[r], apart);
    const int64_t row = first + r;
    if (lane != r || row >= task.rows) continue;
    if (task.bias != nullptr) sums[r] += *task.bias;
    if (task.beside != nullptr) sums[r] += task.beside[row];
    if (task.beside_bias != nullptr) sums[r] += *task.beside_bias;
    y[row] = sums[r];
  }
}

// As gate_kernel: parts [stripes, width] with the width of sums_of_row().
template <typename T, int kCount, bool kGated>
__global__ void __launch_bounds__(kVectors* kRowsAtOnce)
    row_gradient_kernel(const Row task, const RowGradient gradient, float* parts, int64_t width) {
  using V = Vector<T, kCount>;
  __shared__ float sums[kRowsAtOnce][kVectors * kCount + 1];
  __shared__ float gated_sums[kGated ? kRowsAtOnce : 1][kVectors * kCount + 1];
  __shared__ float biases[kRowsAtOnce];
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * kVectors + threadIdx.x) * kCount;
  float sum[kCount] = {}, gated_sum[kCount] = {}, bias = 0, weight[kCount] = {};
  if (column < task.columns) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) weight[i] = task.weight[column + i];
    const int64_t step = static_cast<int64_t>(gridDim.y) * kRowsAtOnce;
    for (int64_t row = blockIdx.y * kRowsAtOnce + threadIdx.y; row < task.rows; row += kLoads * step) {
      V x[kLoads];
      float incoming[kLoads];
#pragma unroll
      for (int u = 0; u < kLoads; ++u) {
        const int64_t from = min(row + u * step, task.rows - 1);
        x[u] = *reinterpret_cast<const V*>(static_cast<const T*>(task.x) + from * task.columns + column);
        incoming[u] = gradient.incoming[from];
      }
#pragma unroll
      for (int u = 0; u < kLoads; ++u) {
        if (row + u * step >= task.rows) continue;
        V to_x;
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
          const float value = to_float(x[u].values[i]);
          sum[i] += incoming[u] * value;
          store(&to_x.values[i], !kGated || value > 0 ? incoming[u] * weight[i] : 0.0F);
          if (kGated) gated_sum[i] += to_float(to_x.values[i]);
        }
        bias += incoming[u];
        *reinterpret_cast<V*>(static_cast<T*>(gradient.to_x) + (row + u * step) * task.columns + column) = to_x;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    sums[threadIdx.y][threadIdx.x * kCount + i] = sum[i];
    if (kGated) gated_sums[threadIdx.y][threadIdx.x * kCount + i] = gated_sum[i];
  }
  if (threadIdx.x == 0) biases[threadIdx.y] = bias;
  __syncthreads();
  if (threadIdx.y > 0 || column >= task.columns) return;
  float* to = parts + blockIdx.y * width;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    float total = 0, gated_total = 0;
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
      total += sums[r][threadIdx.x * kCount + i];
      if (kGated) gated_total += gated_sums[r][threadIdx.x * kCount + i];
    }
    to[column + i] = total;
    if (kGated) to[task.columns + 1 + column + i] = gated_total;
  }
  if (column > 0) return;
  for (int r = 1; r < kRowsAtOnce; ++r) bias += biases[r];
  to[task.columns] = bias;
}

template <typename T, int kCount, bool kGated>
Status launch_row_gradient(const Row& task, const RowGradient& gradient, Stream stream) {
  const int64_t width = sums_of_row(task.columns, kGated);
  auto* parts = static_cast<float*>(gradient.scratch);
  const auto stripes = static_cast<unsigned>(stripes_of(task.rows));
  const dim3 grid(blocks_for(task.columns, kVectors * kCount), stripes), block(kVectors, kRowsAtOnce);
  row_gradient_kernel<T, kCount, kGated><<<grid, block, 0, stream>>>(task, gradient, parts, width);
  if (const auto status = cudaGetLastError(); status != cudaSuccess) return status;
  return sum_parts(parts, stripes, width, width, gradient.sums, stream);
}

template <typename T, bool kGated>
Status row_gradient(const Row& task, const RowGradient& gradient, Stream stream) {
  constexpr int kWide = 16 / sizeof(T);
  const bool wide = task.columns % kWide == 0 && is_aligned(task.x) && is_aligned(gradient.to_x);
  return wide ? launch_row_gradient<T, kWide, kGated>(task, gradient, stream)
              : launch_row_gradient<T, 1, kGated>(task, gradient, stream);
}

template <typename T, int kCount>
Status launch_row(const Row& task, float* y, Stream stream) {
  constexpr int kThreads = kVectors * kRowsAtOnce;
  constexpr int kRows = kThreads / kWarp * kRowsPerWarp;
  row_kernel<T, kCount><<<blocks_for(task.rows, kRows), kThreads, 0, stream>>>(task, y);
  return cudaGetLastError();
}

constexpr int kLossThreads = 256;
constexpr int64_t kMostLossBlocks = 256;

int64_t loss_blocks(int64_t rows) { return std::clamp<int64_t>(blocks_for(rows, kLossThreads), 1, kMostLossBlocks); }

// Sum over the threads of a block, in a fixed order; whole in thread 0.
__device__ double block_sum(double value) {
  __shared__ double parts[kLossThreads / kWarp];
  for (int apart = kWarp / 2; apart > 0; apart /= 2) value += __shfl_xor_sync(0xffffffffU, value, apart);
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = value;
  __syncthreads();
  if (threadIdx.x > 0) return 0;
  value = 0;
  for (const double part : parts) value += part;
  return value;
}

__global__ void __launch_bounds__(kLossThreads) loss_kernel(const Logloss task, double* parts) {
  double sum = 0;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kLossThreads;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * kLossThreads + threadIdx.x; row < task.rows; row += step) {
    const float logit = task.logits[row], label = task.labels[row];
    const float smaller = expf(-fabsf(logit));  // at most 1
    // Where the label is 0 or 1 nothing cancels.
    const float high = 1.0F / (1.0F + smaller), low = smaller / (1.0F + smaller);
    const float click = logit >= 0 ? high : low, skip = logit >= 0 ? low : high;
    task.gradient[row] = (click * (1.0F - label) - skip * label) / static_cast<float>(task.rows);
    sum += (fmaxf(logit, 0.0F) - label * logit) + log1pf(smaller);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kLossThreads) mean_kernel(const double* parts, int count, int64_t rows, float* loss) {
  const double sum = block_sum(static_cast<int>(threadIdx.x) < count ? parts[threadIdx.x] : 0.0);
  if (threadIdx.x == 0) *loss = static_cast<float>(sum / static_cast<double>(rows));
}
static_assert(kMostLossBlocks <= kLossThreads);

}  // namespace

Status relu_gradient(const GateGradient& task, Stream stream) { return gate_gradient<ReluGate>(task, stream); }

Status factor_gradient(const GateGradient& task, Stream stream) { return gate_gradient<FactorGate>(task, stream); }

Status round_arrays(const Rounding* arrays, int count, Stream stream) {
  for (int begin = 0; begin < count; begin += kArraysPerLaunch) {
    const int some = std::min(count - begin, kArraysPerLaunch);
    RoundingList list{};
    int64_t longest = 0;
    for (int i = 0; i < some; ++i) {
      list.arrays[i] = arrays[begin + i];
      longest = std::max(longest, list.arrays[i].count);
    }
    if (longest == 0) continue;
    const dim3 grid(blocks_for(longest, kRoundedPerThread * kRoundThreads), static_cast<unsigned>(some));
    round_kernel<<<grid, kRoundThreads, 0, stream>>>(list);
    if (const auto status = cudaGetLastError(); status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

Status row_forward(const Row& task, float* y, Stream stream) {
  return with_element(task.element, [&](auto element) {
    using T = decltype(element);
    constexpr int kWide = 16 / sizeof(T);
    return task.columns % kWide == 0 && is_aligned(task.x) ? launch_row<T, kWide>(task, y, stream)
                                                           : launch_row<T, 1>(task, y, stream);
  });
}

Status row_backward(const Row& task, const RowGradient& gradient, Stream stream) {
  return with_element(task.element, [&](auto element) {
    using T = decltype(element);
    return gradient.gated ? row_gradient<T, true>(task, gradient, stream)
                          : row_gradient<T, false>(task, gradient, stream);
  });
}

size_t logloss_scratch(int64_t rows) { return static_cast<size_t>(loss_blocks(rows)) * sizeof(double); }

Status logloss(const Logloss& task, Stream stream) {
  auto* parts = static_cast<double*>(task.scratch);
  const auto blocks = static_cast<unsigned>(loss_blocks(task.rows));
  loss_kernel<<<blocks, kLossThreads, 0, stream>>>(task, parts);
  if (const auto status = cudaGetLastError(); status != cudaSuccess) return status;
  mean_kernel<<<1, kLossThreads, 0, stream>>>(parts, static_cast<int>(blocks), task.rows, task.loss);
  return cudaGetLastError();
}

}  // namespace afm::cuda
