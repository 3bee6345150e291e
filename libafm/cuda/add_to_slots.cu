#include "libafm/cuda/place_gradients.cuh"
#include "libafm/cuda/row_slots.h"
#include "libafm/cuda/shapes.cuh"

namespace afm::cuda {
namespace {

constexpr int kClaimThreads = 256, kClaimsPerThread = 8;
constexpr int kAddThreads = 512;             // at most
constexpr int kSharedBytes = 48 * 1024;      // what every GPU gives a block without being asked
constexpr int kBlocksPerMultiprocessor = 3;  // of that much shared memory and 128 registers a thread
constexpr uint32_t kTaken = 0xfffffffeU;     // a slot that is about to have its number

// Each row among `rows` [places] gets a slot. A block asks for all its new slots at once.
__global__ void __launch_bounds__(kClaimThreads)
    claim_slots_kernel(const uint32_t* rows, int64_t places, const RowSlots slots) {
  __shared__ uint32_t taken, first;
  if (threadIdx.x == 0) taken = 0;
  __syncthreads();
  uint32_t mine[kClaimsPerThread], order[kClaimsPerThread];
  int count = 0;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kClaimThreads * kClaimsPerThread + threadIdx.x;
#pragma unroll
  for (int u = 0; u < kClaimsPerThread; ++u) {
    const int64_t place = begin + u * kClaimThreads;
    mine[u] = kNoSlot;
    if (place >= places) continue;
    const uint32_t row = rows[place];
    if (slots.slot_of[row] != kNoSlot || atomicCAS(slots.slot_of + row, kNoSlot, kTaken) != kNoSlot) continue;
    mine[u] = row;
    order[u] = atomicAdd(&taken, 1U);
    ++count;
  }
  __syncthreads();
  if (threadIdx.x == 0) first = taken > 0 ? atomicAdd(slots.count, taken) : 0;
  __syncthreads();
  if (count == 0) return;
#pragma unroll
  for (int u = 0; u < kClaimsPerThread; ++u) {
    if (mine[u] == kNoSlot) continue;
    const uint32_t slot = first + order[u];
    slots.slot_of[mine[u]] = slot;
    slots.row_of[slot] = mine[u];
  }
}

template <int kColumns>
__device__ void add_atomically(float* to, const float (&values)[kColumns]) {
#pragma unroll
  for (int c = 0; c < kColumns; c += 4) {
#if __CUDA_ARCH__ >= 900
    atomicAdd(reinterpret_cast<float4*>(to + c), make_float4(values[c], values[c + 1], values[c + 2], values[c + 3]));
#else
#pragma unroll
    for (int i = 0; i < 4; ++i) atomicAdd(to + c + i, values[c + i]);
#endif
  }
}

// The first rows of each field, in the shared memory of a block.
template <int kWidth>
struct HotRows {
  float* sums;       // [fields, most, kWidth]
  float* scores;     // [fields, most]
  uint8_t* touched;  // [fields, most]
  int most;          // rows of a field

  static __host__ __device__ constexpr int bytes_of_row() { return (kWidth + 1) * sizeof(float) + 1; }
  static int most_for(int fields) { return kSharedBytes / (fields * bytes_of_row()); }

  __device__ HotRows(float* memory, int fields, int rows)
      : sums(memory),
        scores(sums + fields * rows * kWidth),
        touched(reinterpret_cast<uint8_t*>(scores + fields * rows)),
        most(rows) {}
};

// One field of a stretch of samples, by the lanes that own it in this block.
template <int kLanes, int kColumns, typename In>
class FieldAdder {
 public:
  static constexpr int kWidth = kLanes * kColumns;
  static constexpr int kCount = kColumns == 4 ? 6 : 3;  // places under way at once

  __device__ FieldAdder(const Table& table, const RowGradients& task, const RowSlots& slots, Aligned aligned,
                        const HotRows<kWidth>& hot, int field)
      : table_(table),
        task_(task),
        slots_(slots),
        aligned_(aligned),
        hot_(hot),
        field_(field),
        d_(threadIdx.x % kLanes * kColumns),
        first_row_(static_cast<uint32_t>(table.first_row[field])) {}

  __device__ void run(int begin, int end) const {
    clear();
    for (int at = begin; at < end; at += kCount) add_samples(at, end);
    __syncwarp(lanes_mask<kLanes>());
    flush();
  }

 private:
  __device__ bool leads() const { return d_ == 0; }
  __device__ int place_of(int number) const { return field_ * hot_.most + number; }

  __device__ void clear() const {
    for (int number = 0; number < hot_.most; ++number) {
      const int place = place_of(number);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) hot_.sums[place * kWidth + d_ + c] = 0;
      if (!leads()) continue;
      hot_.scores[place] = 0;
      hot_.touched[place] = 0;
    }
    __syncwarp(lanes_mask<kLanes>());
  }

  __device__ void add_samples(int at, int end) const {
    const auto sample_of = [&](int u) { return min(at + u, end - 1); };
    uint32_t number[kCount], slot[kCount];
#pragma unroll
    for (int u = 0; u < kCount; ++u)
      number[u] = task_.rows[static_cast<int64_t>(sample_of(u)) * table_.fields + field_] - first_row_;
    LoadedPlaces<In, kColumns, kCount> places;
    places.load(table_, task_, aligned_, d_, [&](int u) {
      return Place{static_cast<uint32_t>(sample_of(u)), static_cast<uint32_t>(field_)};
    });
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      if (number[u] >= hot_.most) slot[u] = slots_.slot_of[first_row_ + number[u]];
    }
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      if (at + u >= end) continue;
      const Sums<kColumns> sums = places.gradient(u);
      if (number[u] < hot_.most) {
        add_shared(place_of(static_cast<int>(number[u])), sums);
      } else {
        add_global(slot[u], sums.values, sums.score);
      }
    }
  }

  __device__ void add_shared(int place, const Sums<kColumns>& sums) const {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) hot_.sums[place * kWidth + d_ + c] += sums.values[c];
    if (!leads()) return;
    hot_.scores[place] += sums.score;
    hot_.touched[place] = 1;
  }

  __device__ void add_global(uint32_t slot, const float (&values)[kColumns], float score) const {
    add_atomically(slots_.sums + static_cast<int64_t>(slot) * kWidth + d_, values);
    if (leads() && task_.score != nullptr) atomicAdd(slots_.scores + slot, score);
  }

  __device__ void flush() const {
    for (int number = 0; number < hot_.most; ++number) {
      const int place = place_of(number);
      if (hot_.touched[place] == 0) continue;
      float values[kColumns];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) values[c] = hot_.sums[place * kWidth + d_ + c];
      add_global(slots_.slot_of[first_row_ + number], values, hot_.scores[place]);
    }
  }

  const Table& table_;
  const RowGradients& task_;
  const RowSlots& slots_;
  const Aligned aligned_;
  const HotRows<kWidth>& hot_;
  const int field_, d_;
  const uint32_t first_row_;
};

template <int kLanes, int kColumns, typename In>
__global__ void __launch_bounds__(kAddThreads)
    add_places_kernel(const Table table, const RowGradients task, const RowSlots slots, const Aligned aligned,
                      const int hot_rows, const int64_t stretch) {
  extern __shared__ float4 memory[];
  const HotRows<kLanes * kColumns> hot(reinterpret_cast<float*>(memory), table.fields, hot_rows);
  const auto begin = static_cast<int>(blockIdx.x * stretch);
  const auto end = static_cast<int>(min(begin + stretch, task.batch));
  const int groups = blockDim.x / kLanes;
  for (int field = threadIdx.x / kLanes; field < table.fields; field += groups) {
    FieldAdder<kLanes, kColumns, In>(table, task, slots, aligned, hot, field).run(begin, end);
  }
}

int64_t stretch_of(int64_t batch) {
  int device = 0, multiprocessors = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  const int64_t blocks = static_cast<int64_t>(multiprocessors) * kBlocksPerMultiprocessor;
  return (batch + blocks - 1) / blocks;
}

Status claim_slots(const RowGradients& task, int64_t places, const RowSlots& slots, Stream stream) {
  const Status status = cudaMemsetAsync(slots.count, 0, sizeof(*slots.count), stream);
  if (status != cudaSuccess) return status;
  const unsigned blocks = blocks_for(places, kClaimThreads * kClaimsPerThread);
  claim_slots_kernel<<<blocks, kClaimThreads, 0, stream>>>(task.rows, places, slots);
  return static_cast<Status>(cudaGetLastError());
}

}  // namespace

int slot_width(int dim) {
  int width = 0;
  with_vector_shape(dim, [&](auto shape) {
    width = decltype(shape)::kLanes * decltype(shape)::kColumns;
    return static_cast<Status>(cudaSuccess);
  });
  return width;
}

Status add_to_slots(const Table& table, const RowGradients& task, const RowSlots& slots, Stream stream) {
  const int64_t places = task.batch * table.fields;
  if (places == 0) return cudaMemsetAsync(slots.count, 0, sizeof(*slots.count), stream);
  const Status status = claim_slots(task, places, slots, stream);
  if (status != cudaSuccess) return status;
  return with_vector_shape(table.dim, [&](auto shape) {
    using S = decltype(shape);
    using Hot = HotRows<S::kLanes * S::kColumns>;
    const int hot_rows = Hot::most_for(table.fields);
    const int threads = min(kAddThreads, (table.fields * S::kLanes + kWarp - 1) / kWarp * kWarp);
    const int64_t stretch = stretch_of(task.batch);
    return with_element(task.element, [&](auto element) {
      add_places_kernel<S::kLanes, S::kColumns, decltype(element)>
          <<<blocks_for(task.batch, stretch), threads, hot_rows * table.fields * Hot::bytes_of_row(), stream>>>(
              table, task, slots, aligned_parts(table, task), hot_rows, stretch);
      return static_cast<Status>(cudaGetLastError());
    });
  });
}

}  // namespace afm::cuda
