#include <algorithm>

#include "libafm/cuda/cross.h"
#include "libafm/cuda/shapes.cuh"

namespace afm::cuda {
namespace {

constexpr int kCrossThreads = 256;
constexpr int kRowsPerWarp = 4;                    // share the weights that a lane has read
constexpr int kRowsAhead = 16, kMostAcross = 128;  // of the backward pass: rows whose factors are known, block width

__device__ const float* row_of_layer(const CrossRow& task, int layer) {
  return layer < task.layers ? task.weight + layer * task.columns : task.head;
}

// Whole in thread 0.
__device__ float sum_of_block(float value) {
  __shared__ float parts[kCrossThreads / kWarp];
  for (int apart = kWarp / 2; apart > 0; apart /= 2) value += __shfl_xor_sync(0xffffffffU, value, apart);
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = 0;
  if (threadIdx.x == 0) {
    for (const float part : parts) value += part;
  }
  return value;
}

// A block per layer, and one for the head.
__global__ void __launch_bounds__(kCrossThreads) constants_kernel(const CrossRow task, float* constants) {
  const int layer = static_cast<int>(blockIdx.x);
  const float* weight = row_of_layer(task, layer);
  float sum = 0;
  for (int64_t c = threadIdx.x; c < task.columns; c += kCrossThreads) {
    float bias = 0;
    for (int before = 0; before < layer; ++before) bias += task.bias[before * task.columns + c];
    sum += bias * weight[c];
  }
  sum = sum_of_block(sum);
  if (threadIdx.x == 0) constants[layer] = sum;
}

template <int kVec>
__device__ void load_weights(const float* from, float (&to)[kVec]) {
  constexpr int kAtOnce = kVec % 4 == 0 ? 4 : 1;
#pragma unroll
  for (int i = 0; i < kVec; i += kAtOnce) {
    const auto some = *reinterpret_cast<const Vector<float, kAtOnce>*>(from + i);
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) to[i + j] = some.values[j];
  }
}

// A warp for a few rows.
template <typename T, int kVec, int kCount>
__global__ void __launch_bounds__(kCrossThreads)
    cross_row_kernel(const CrossRow task, const CrossProducts products, float* score) {
  using V = Vector<T, kVec>;
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * (kCrossThreads / kWarp) + threadIdx.x / kWarp;
  const int64_t first = warp * kRowsPerWarp;
  if (first >= task.rows) return;
  const int lane = threadIdx.x % kWarp;
  float sums[kRowsPerWarp][kCount] = {};
  for (int64_t c = lane * kVec; c < task.columns; c += kWarp * kVec) {
    V x[kRowsPerWarp];
#pragma unroll
    for (int r = 0; r < kRowsPerWarp; ++r) {
      const int64_t row = min(first + r, task.rows - 1);
      x[r] = *reinterpret_cast<const V*>(static_cast<const T*>(task.x) + row * task.columns + c);
    }
#pragma unroll
    for (int l = 0; l < kCount; ++l) {
      if (l > task.layers) continue;
      float weight[kVec];
      load_weights(row_of_layer(task, l) + c, weight);
#pragma unroll
      for (int r = 0; r < kRowsPerWarp; ++r) {
#pragma unroll
        for (int i = 0; i < kVec; ++i) sums[r][l] += to_float(x[r].values[i]) * weight[i];
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRowsPerWarp; ++r) {
#pragma unroll
    for (int l = 0; l < kCount; ++l) {
#pragma unroll
      for (int apart = kWarp / 2; apart > 0; apart /= 2) {
        sums[r][l] += __shfl_xor_sync(0xffffffffU, sums[r][l], apart);
      }
    }
    const int64_t row = first + r;
    if (lane != r || row >= task.rows) continue;
    float a = 1;
#pragma unroll
    for (int l = 0; l < kCount; ++l) {
      if (l > task.layers) continue;
      products.rows[row * (task.layers + 1) + l] = sums[r][l];
      if (l == task.layers) {
        score[row] = a * sums[r][l] + products.constants[l];
      } else {
        a += a * sums[r][l] + products.constants[l];
      }
    }
  }
}

// Gradients of one row's products, and of the constants, which are shared by all rows.
template <int kCount>
struct RowFactors {
  float products[kCount], constants[kCount];
};

template <int kCount>
__device__ RowFactors<kCount> factors_of(const float* products, const float* constants, int layers, float incoming) {
  float a[kCount], product[kCount];
  RowFactors<kCount> factors;
  float now = 1, last = 0;  // `last`: x_0 . h
#pragma unroll
  for (int l = 0; l < kCount; ++l) {
    factors.products[l] = factors.constants[l] = 0;
    a[l] = now;
    if (l > layers) continue;
    product[l] = products[l];
    if (l == layers) {
      factors.products[l] = incoming * now;
      factors.constants[l] = incoming;
      last = product[l];
    } else {
      now += now * product[l] + constants[l];
    }
  }
  float to_a = incoming * last;  // gradient of a_{l + 1}
#pragma unroll
  for (int l = kCount - 1; l >= 0; --l) {
    if (l >= layers) continue;
    factors.products[l] = to_a * a[l];
    factors.constants[l] = to_a;
    to_a += to_a * product[l];
  }
  return factors;
}

// Each stripe of rows leaves parts [L + 1, columns] of the weights' and the head's gradients, then [L + 1] of the
// constants'. Threads side by side hold columns, those behind each other rows.
template <typename T, int kVec, int kCount>
__global__ void __launch_bounds__(kCrossThreads)
    cross_gradient_kernel(const CrossRow task, const CrossProducts products, const CrossRowGradient gradient,
                          float* parts) {
  using V = Vector<T, kVec>;
  __shared__ float factors[kRowsAhead][kCount];
  __shared__ float sums[kCrossThreads * kVec];
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, layers = task.layers;
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kVec;
  const bool is_inside = column < task.columns;
  float weight[kCount][kVec] = {}, sum[kCount][kVec] = {}, constants[kCount] = {};
#pragma unroll
  for (int l = 0; l < kCount; ++l) {
    if (is_inside && l <= layers) load_weights(row_of_layer(task, l) + column, weight[l]);
  }
  const int64_t step = static_cast<int64_t>(gridDim.y) * kRowsAhead;
  for (int64_t base = static_cast<int64_t>(blockIdx.y) * kRowsAhead; base < task.rows; base += step) {
    const int count = static_cast<int>(min(static_cast<int64_t>(kRowsAhead), task.rows - base));
    __syncthreads();
    if (thread < count) {
      const int64_t row = base + thread;
      const RowFactors<kCount> own =
          factors_of<kCount>(products.rows + row * (layers + 1), products.constants, layers, gradient.score[row]);
#pragma unroll
      for (int l = 0; l < kCount; ++l) {
        factors[thread][l] = own.products[l];
        constants[l] += own.constants[l];
      }
    }
    __syncthreads();
    if (!is_inside) continue;
#pragma unroll 2
    for (int r = threadIdx.y; r < count; r += blockDim.y) {
      const int64_t at = (base + r) * task.columns + column;
      const V x = *reinterpret_cast<const V*>(static_cast<const T*>(task.x) + at);
      V to_x;
      float total[kVec] = {};
      if (gradient.x != nullptr) {
        const V beside = *reinterpret_cast<const V*>(static_cast<const T*>(gradient.x) + at);
#pragma unroll
        for (int i = 0; i < kVec; ++i) total[i] = to_float(beside.values[i]);
      }
#pragma unroll
      for (int l = 0; l < kCount; ++l) {
        const float factor = factors[r][l];
#pragma unroll
        for (int i = 0; i < kVec; ++i) {
          total[i] += factor * weight[l][i];
          sum[l][i] += factor * to_float(x.values[i]);
        }
      }
#pragma unroll
      for (int i = 0; i < kVec; ++i) store(&to_x.values[i], total[i]);
      *reinterpret_cast<V*>(static_cast<T*>(gradient.to_x) + at) = to_x;
    }
  }

  float* to = parts + static_cast<int64_t>(blockIdx.y) * (layers + 1) * (task.columns + 1);
#pragma unroll
  for (int l = 0; l < kCount; ++l) {
    if (l > layers) continue;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kVec; ++i) sums[thread * kVec + i] = sum[l][i];
    __syncthreads();
    if (threadIdx.y > 0 || !is_inside) continue;
#pragma unroll
    for (int i = 0; i < kVec; ++i) {
      float total = 0;
      for (int y = 0; y < blockDim.y; ++y) total += sums[(y * blockDim.x + threadIdx.x) * kVec + i];
      to[l * task.columns + column + i] = total;
    }
  }
  if (blockIdx.x > 0 || thread >= kWarp) return;
#pragma unroll
  for (int l = 0; l < kCount; ++l) {
    if (l > layers) continue;
#pragma unroll
    for (int apart = kWarp / 2; apart > 0; apart /= 2) {
      constants[l] += __shfl_xor_sync(0xffffffffU, constants[l], apart);
    }
    if (thread == 0) to[(layers + 1) * task.columns + l] = constants[l];
  }
}
static_assert(kRowsAhead <= kWarp);

// From the sums of all stripes to the gradients, with the shares of the constants: that of B_l . w_l falls on w_l and
// on the biases before it.
__global__ void __launch_bounds__(kCrossThreads)
    finish_kernel(const CrossRow task, const CrossRowGradient gradient, const float* sums) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kCrossThreads + threadIdx.x;
  if (column >= task.columns) return;
  const float* constants = sums + (task.layers + 1) * task.columns;
  float bias = 0;
  for (int l = 0; l <= task.layers; ++l) {
    float* to = l < task.layers ? gradient.to_weight + l * task.columns : gradient.to_head;
    to[column] = sums[l * task.columns + column] + constants[l] * bias;
    if (l < task.layers) bias += task.bias[l * task.columns + column];
  }
  float behind = 0;
  for (int l = task.layers - 1; l >= 0; --l) {
    behind += constants[l + 1] * row_of_layer(task, l + 1)[column];
    gradient.to_bias[l * task.columns + column] = behind;
  }
}

bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// Calls run(value of the element type, Shape<values in a vector, products a row>).
template <typename Run>
Status with_cross_shape(const CrossRow& task, bool aligned, Run run) {
  return with_element(task.element, [&](auto element) {
    constexpr int kWide = 16 / sizeof(element);
    const bool wide =
        aligned && is_aligned(task.x) && is_aligned(task.weight) && is_aligned(task.head) && task.columns % kWide == 0;
    if (task.layers < 4) return wide ? run(element, Shape<kWide, 4>{}) : run(element, Shape<1, 4>{});
    return wide ? run(element, Shape<4, 8>{}) : run(element, Shape<1, 8>{});
  });
}

int64_t sums_of(const CrossRow& task) { return (task.layers + 1) * (task.columns + 1); }

template <typename T, int kVec, int kCount>
Status launch_gradient(const CrossRow& task, const CrossProducts& products, const CrossRowGradient& gradient,
                       float* parts, Stream stream) {
  const int64_t vectors = (task.columns + kVec - 1) / kVec;
  const auto across = static_cast<unsigned>(std::min<int64_t>(vectors, kMostAcross));
  const dim3 block(across, kCrossThreads / across);
  const dim3 grid(blocks_for(vectors, across), static_cast<unsigned>(stripes_of(task.rows)));
  cross_gradient_kernel<T, kVec, kCount><<<grid, block, 0, stream>>>(task, products, gradient, parts);
  return cudaGetLastError();
}

}  // namespace

Status cross_row_forward(const CrossRow& task, const CrossProducts& products, float* score, Stream stream) {
  constants_kernel<<<static_cast<unsigned>(task.layers) + 1, kCrossThreads, 0, stream>>>(task, products.constants);
  if (const auto status = cudaGetLastError(); status != cudaSuccess) return status;
  return with_cross_shape(task, true, [&](auto element, auto shape) {
    using S = decltype(shape);
    const unsigned blocks = blocks_for(task.rows, kCrossThreads / kWarp * kRowsPerWarp);
    cross_row_kernel<decltype(element), S::kLanes, S::kColumns>
        <<<blocks, kCrossThreads, 0, stream>>>(task, products, score);
    return static_cast<Status>(cudaGetLastError());
  });
}

size_t cross_row_scratch(const CrossRow& task) {
  return parts_bytes(task.rows, sums_of(task)) + static_cast<size_t>(sums_of(task)) * sizeof(float);
}

Status cross_row_backward(const CrossRow& task, const CrossProducts& products, const CrossRowGradient& gradient,
                          Stream stream) {
  auto* sums = static_cast<float*>(gradient.scratch);
  float* parts = sums + sums_of(task);
  const bool aligned = is_aligned(gradient.x) && is_aligned(gradient.to_x);
  Status status = with_cross_shape(task, aligned, [&](auto element, auto shape) {
    using S = decltype(shape);
    return launch_gradient<decltype(element), S::kLanes, S::kColumns>(task, products, gradient, parts, stream);
  });
  if (status == cudaSuccess)
    status = sum_parts(parts, stripes_of(task.rows), sums_of(task), sums_of(task), sums, stream);
  if (status != cudaSuccess) return status;
  finish_kernel<<<blocks_for(task.columns, kCrossThreads), kCrossThreads, 0, stream>>>(task, gradient, sums);
  return cudaGetLastError();
}

}  // namespace afm::cuda
