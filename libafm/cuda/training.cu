#include <algorithm>
#include <cfloat>

#include "libafm/cuda/shapes.cuh"
#include "libafm/cuda/training.h"

namespace afm::cuda {
namespace {

constexpr int kThreads = 256, kPerThread = 4, kPerBlock = kThreads * kPerThread;
constexpr int kTensorsPerLaunch = 32;

struct AdamList {
  AdamTensor tensors[kTensorsPerLaunch];
  unsigned first_block[kTensorsPerLaunch];
  int count;
};

__global__ void __launch_bounds__(kThreads) adam_kernel(const AdamList list, const Adam adam) {
  __shared__ float step_size, root;  // rate / (1 - beta1^t), sqrt(1 - beta2^t)
  int which = 0;
  while (which + 1 < list.count && list.first_block[which + 1] <= blockIdx.x) ++which;
  const AdamTensor tensor = list.tensors[which];
  if (threadIdx.x == 0) {
    const double rate = adam.rate != nullptr ? *adam.rate : adam.rate_value, step = *tensor.step;
    step_size = static_cast<float>(rate / (1 - pow(adam.beta1, step)));
    root = static_cast<float>(sqrt(1 - pow(adam.beta2, step)));
  }
  __syncthreads();
  const auto beta1 = static_cast<float>(adam.beta1), beta2 = static_cast<float>(adam.beta2);
  const int64_t begin = static_cast<int64_t>(blockIdx.x - list.first_block[which]) * kPerBlock + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int64_t at = begin + i * kThreads;
    if (at >= tensor.count) continue;
    const float value = tensor.parameter[at], gradient = tensor.gradient[at] + tensor.l2 * value;
    const float mean = tensor.mean[at] + (gradient - tensor.mean[at]) * (1 - beta1);
    const float square = beta2 * tensor.square[at] + (1 - beta2) * gradient * gradient;
    tensor.mean[at] = mean;
    tensor.square[at] = square;
    tensor.parameter[at] = value - step_size * mean / (sqrtf(square) / root + adam.epsilon);
  }
}

// A warp per row.
__global__ void __launch_bounds__(kThreads) gather_kernel(const Gather task) {
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kWarp;
  if (row >= task.rows) return;
  const int lane = threadIdx.x % kWarp;
  const int64_t from = task.index[row];
  // Ids of 64 slots are under way before the first is stored.
  const int32_t* ids = task.ids + from * task.slots;
  for (int64_t s = lane; s < task.slots; s += 2 * kWarp) {
    const int32_t first = ids[s], second = ids[min(s + kWarp, task.slots - 1)];
    task.to_ids[row * task.slots + s] = first;
    if (s + kWarp < task.slots) task.to_ids[row * task.slots + s + kWarp] = second;
  }
  for (int64_t q = lane; q < task.dense_count; q += kWarp) {
    task.to_dense[row * task.dense_count + q] = task.dense[from * task.dense_count + q];
  }
  if (lane == 0) task.to_labels[row] = task.labels[from];
}

__global__ void add_loss_kernel(const LossSum task) {
  const double sum = *task.sum + static_cast<double>(*task.loss) * static_cast<double>(task.rows);
  *task.sum = sum;
  if (sum <= DBL_MAX) ++*task.finite_batches;
}

}  // namespace

Status step_adam(const AdamTensor* tensors, int count, const Adam& adam, Stream stream) {
  for (int begin = 0; begin < count; begin += kTensorsPerLaunch) {
    AdamList list{};
    unsigned blocks = 0;
    list.count = std::min(count - begin, kTensorsPerLaunch);
    for (int i = 0; i < list.count; ++i) {
      list.tensors[i] = tensors[begin + i];
      list.first_block[i] = blocks;
      blocks += blocks_for(list.tensors[i].count, kPerBlock);
    }
    if (blocks == 0) continue;
    adam_kernel<<<blocks, kThreads, 0, stream>>>(list, adam);
    if (const auto status = cudaGetLastError(); status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

Status gather(const Gather& task, Stream stream) {
  if (task.rows == 0) return cudaSuccess;
  gather_kernel<<<blocks_for(task.rows, kThreads / kWarp), kThreads, 0, stream>>>(task);
  return cudaGetLastError();
}

Status add_loss(const LossSum& task, Stream stream) {
  add_loss_kernel<<<1, 1, 0, stream>>>(task);
  return cudaGetLastError();
}

}  // namespace afm::cuda
