#include "libafm/cuda/cross.h"
#include "libafm/cuda/shapes.cuh"

namespace afm::cuda {
namespace {

constexpr int kStepThreads = 256;

template <typename T, int kVec>
__device__ void load_floats(const void* from, int64_t at, float (&to)[kVec]) {
  const auto values = *reinterpret_cast<const Vector<T, kVec>*>(static_cast<const T*>(from) + at);
#pragma unroll
  for (int i = 0; i < kVec; ++i) to[i] = to_float(values.values[i]);
}

template <typename T, int kVec>
__device__ void store_floats(const float (&from)[kVec], void* to, int64_t at) {
  Vector<T, kVec> values;
#pragma unroll
  for (int i = 0; i < kVec; ++i) store(&values.values[i], from[i]);
  *reinterpret_cast<Vector<T, kVec>*>(static_cast<T*>(to) + at) = values;
}

template <typename T, int kVec>
__global__ void __launch_bounds__(kStepThreads) step_kernel(const CrossStep task) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kStepThreads + threadIdx.x) * kVec;
  if (at >= task.count) return;
  float x0[kVec], x[kVec], z[kVec];
  load_floats<T>(task.x0, at, x0);
  load_floats<T>(task.x, at, x);
  load_floats<T>(task.z, at, z);
#pragma unroll
  for (int i = 0; i < kVec; ++i) x[i] += x0[i] * z[i];
  store_floats<T>(x, task.next, at);
}

template <typename T, int kVec>
__global__ void __launch_bounds__(kStepThreads) input_gradient_kernel(const CrossInputGradient task) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kStepThreads + threadIdx.x) * kVec;
  if (at >= task.count) return;
  float sum[kVec], one[kVec], other[kVec];
  load_floats<T>(task.first, at, sum);
  if (task.beside != nullptr) {
    load_floats<T>(task.beside, at, one);
#pragma unroll
    for (int i = 0; i < kVec; ++i) sum[i] += one[i];
  }
#pragma unroll
  for (int l = 0; l < kMostCrossLayers; ++l) {
    if (l >= task.layers) continue;
    load_floats<T>(task.incoming[l], at, one);
    load_floats<T>(task.z[l], at, other);
#pragma unroll
    for (int i = 0; i < kVec; ++i) sum[i] += one[i] * other[i];
  }
  store_floats<T>(sum, task.to_x0, at);
}

// Calls run(value of the element type, Shape<values in a vector, 1>); LibTorch aligns what it allocates.
template <typename Run>
Status with_step_shape(Element element, int64_t count, Run run) {
  return with_element(element, [&](auto value) {
    constexpr int kWide = 16 / sizeof(value);
    return count % kWide == 0 ? run(value, Shape<kWide, 1>{}) : run(value, Shape<1, 1>{});
  });
}

}  // namespace

Status cross_step(const CrossStep& task, Stream stream) {
  return with_step_shape(task.element, task.count, [&](auto element, auto shape) {
    constexpr int kVec = decltype(shape)::kLanes;
    step_kernel<decltype(element), kVec>
        <<<blocks_for(task.count, kStepThreads * kVec), kStepThreads, 0, stream>>>(task);
    return static_cast<Status>(cudaGetLastError());
  });
}

Status cross_input_gradient(const CrossInputGradient& task, Stream stream) {
  return with_step_shape(task.element, task.count, [&](auto element, auto shape) {
    constexpr int kVec = decltype(shape)::kLanes;
    input_gradient_kernel<decltype(element), kVec>
        <<<blocks_for(task.count, kStepThreads * kVec), kStepThreads, 0, stream>>>(task);
    return static_cast<Status>(cudaGetLastError());
  });
}

}  // namespace afm::cuda
