#include "libafm/cuda/lazy_rows.cuh"
#include "libafm/cuda/shapes.cuh"
#include "libafm/cuda/table.h"

namespace afm::cuda {
namespace {

constexpr int kLookupThreads = 256;

// The row of an id; what is out of range is clamped and counted.
__device__ int64_t row_of(const Table& table, const Lookup& task, int64_t sample, int field) {
  const int64_t highest = table.highest[field];
  int64_t id = task.ids[sample * table.fields + field];
  if (id < 0 || id > highest) {
    if (task.wrong != nullptr) atomicAdd(reinterpret_cast<unsigned long long*>(task.wrong), 1ULL);
    id = id < 0 ? 0 : highest;
  }
  return table.first_row[field] + id;
}

// One warp per sample. A lane first finds the rows of its own fields; then groups of lanes read row after row.
// The interaction is added up pair by pair, products += e * (sum of the e before), so that nothing cancels.
// With kLazy rows may be behind what Adam owes them.
template <int kLanes, int kColumns, typename Out, bool kLazy>
__global__ void __launch_bounds__(kLookupThreads)
    lookup_kernel(const Table table, const Lookup task, const LazyAdam adam) {
  constexpr int kGroups = kWarp / kLanes;
  const int64_t sample = (static_cast<int64_t>(blockIdx.x) * kLookupThreads + threadIdx.x) / kWarp;
  if (sample >= task.batch) return;
  const int lane = threadIdx.x % kWarp, group = lane / kLanes, first = lane % kLanes;
  const int width = table.fields * table.dim + task.dense_count;
  Out* input = static_cast<Out*>(task.input) + sample * width;
  float sum[kColumns] = {}, products[kColumns] = {}, wide = 0;
  const int steps = kLazy ? adam.history.count->steps : 0;

  for (int base = 0; base < table.fields; base += kWarp) {
    const int own = base + lane;
    int64_t row = 0;
    int behind = steps;
    if (own < table.fields) {
      row = row_of(table, task, sample, own);
      const int64_t place = sample * table.fields + own;
      if (task.rows != nullptr) task.rows[place] = static_cast<uint32_t>(row);
      if (task.places != nullptr) task.places[place] = static_cast<uint32_t>(sample << task.code.field_bits | own);
      if (kLazy) behind = adam.behind[row];
      if (table.stride > table.dim) {
        const int64_t at = row * table.stride + table.dim;
        const bool owes = kLazy && !owes_nothing(adam, behind, steps);
        wide += owes ? owed_value(table, adam, at, owed_steps(adam, behind)) : table.rows[at];
      }
    }
    const int count = min(kWarp, table.fields - base);
#pragma unroll 4
    for (int next = 0; next < count; next += kGroups) {
      const int field = next + group;
      const int64_t from = __shfl_sync(0xffffffffU, row, min(field, kWarp - 1));
      const int done = kLazy ? __shfl_sync(0xffffffffU, behind, min(field, kWarp - 1)) : 0;
      if (field >= count) continue;
      const bool owes = kLazy && !owes_nothing(adam, done, steps);
      const OwedSteps owed = owes ? owed_steps(adam, done) : OwedSteps{};
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int d = first + c * kLanes;
        if (d >= table.dim) continue;
        const int64_t at = from * table.stride + d;
        const float value = owes ? owed_value(table, adam, at, owed) : table.rows[at];
        store(input + (base + field) * table.dim + d, value);
        products[c] += value * sum[c];
        sum[c] += value;
      }
    }
  }
  for (int q = lane; q < task.dense_count; q += kWarp) {
    store(input + table.fields * table.dim + q, task.dense[sample * task.dense_count + q]);
  }
#pragma unroll
  for (int apart = kLanes; apart < kWarp; apart *= 2) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const float other = __shfl_xor_sync(0xffffffffU, sum[c], apart);
      products[c] += __shfl_xor_sync(0xffffffffU, products[c], apart);
      // Both sides come to the same total: their own products, the other's, and those between the two.
      products[c] += sum[c] * other;
      sum[c] += other;
    }
  }
  if (task.sums != nullptr && group == 0) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int d = first + c * kLanes;
      if (d < table.dim) task.sums[sample * table.dim + d] = sum[c];
    }
  }
  if (task.score == nullptr) return;
  float score = wide;
  if (task.interaction && group == 0) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) score += products[c];
  }
#pragma unroll
  for (int apart = kWarp / 2; apart > 0; apart /= 2) score += __shfl_xor_sync(0xffffffffU, score, apart);
  if (lane == 0) task.score[sample] = score;
}

template <bool kLazy>
Status launch_lookup(const Table& table, const Lookup& task, const LazyAdam& adam, Stream stream) {
  if (task.batch == 0) return cudaSuccess;
  return with_shape(table.dim, [&](auto shape) {
    return with_element(task.element, [&](auto element) {
      using S = decltype(shape);
      const unsigned blocks = blocks_for(task.batch, kLookupThreads / kWarp);
      lookup_kernel<S::kLanes, S::kColumns, decltype(element), kLazy>
          <<<blocks, kLookupThreads, 0, stream>>>(table, task, adam);
      return static_cast<Status>(cudaGetLastError());
    });
  });
}

}  // namespace

Status lookup(const Table& table, const Lookup& task, Stream stream) {
  return launch_lookup<false>(table, task, {}, stream);
}

Status lookup_lazily(const Table& table, const Lookup& task, const LazyAdam& adam, Stream stream) {
  return launch_lookup<true>(table, task, adam, stream);
}

PlaceCode place_code(int64_t fields) {
  int bits = 0;
  while ((int64_t{1} << bits) < fields) ++bits;
  return {bits};
}

bool fits(PlaceCode code, int64_t batch) { return batch <= int64_t{1} << (32 - code.field_bits); }

const char* status_text(Status status) { return cudaGetErrorString(static_cast<cudaError_t>(status)); }

}  // namespace afm::cuda
