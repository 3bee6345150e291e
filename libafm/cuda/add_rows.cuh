#pragma once

// Private: adds up the gradients of a batch row by row, see Note [Deterministic rows], and hands each row's sum to a
// writer: RowWriter (row_writer.cuh) or AdamRowWriter (lazy_rows.cuh).

#include <type_traits>

#include "libafm/cuda/place_gradients.cuh"
#include "libafm/cuda/row_writer.cuh"
#include "libafm/cuda/shapes.cuh"
#include "libafm/cuda/table.h"

namespace afm::cuda {
namespace {

constexpr int kRowThreads = 256, kRowWarps = kRowThreads / kWarp;
constexpr int64_t kSmallBatch = int64_t{1} << 19;  // places; below it smaller blocks fill the chip better

// Places that a group of lanes adds up, so that a block's sums fit into the 48 KB that need not be asked for.
template <typename Shape>
int group_places(int64_t places) {
  return places < kSmallBatch || Shape::kLanes == 1 || Shape::kColumns == 8 ? 4 : 8;
}

template <typename Shape>
unsigned row_blocks(int64_t places) {
  return blocks_for(places, kRowThreads / Shape::kLanes * group_places<Shape>(places));
}

// What blocks leave for the launch that joins their runs.
struct Rest {
  float *heads, *tails;  // [blocks, D + 1] sums, then that of the score's gradient
  uint32_t* tail_rows;   // [blocks]
  uint8_t* flags;        // [blocks]
};
constexpr uint8_t kTailOpen = 1;  // the last run goes on in the next block and began here
constexpr uint8_t kThrough = 2;   // one run, from the block before to the next

// The rows and codes of a group's places, each held by one lane, and where runs start in the warp.
template <int kLanes, int kPer>
struct GroupPlaces {
  static constexpr int kOwn = kPer < kLanes ? 1 : kPer / kLanes;  // of a lane, side by side
  uint32_t rows[kOwn], codes[kOwn];
  unsigned starts[kOwn];  // by lane

  static __device__ int first_own() { return static_cast<int>(threadIdx.x % kLanes) * kOwn; }

  // Behind the last place a run starts that nobody lists; its places repeat the last one.
  __device__ void load(const RowGradients& task, uint32_t begin, uint32_t total) {
    const uint32_t at = begin + first_own(), last = total - 1;
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      rows[j] = task.sorted_rows[min(at + j, last)];
      codes[j] = task.sorted_places[min(at + j, last)];
    }
    const uint32_t before = at > 0 ? task.sorted_rows[min(at - 1, last)] : 0;
#pragma unroll
    for (int j = 0; j < kOwn; ++j) {
      const bool edge = at + j == 0 || at + j == total;
      const bool start = edge || rows[j] != (j == 0 ? before : rows[j > 0 ? j - 1 : 0]);
      starts[j] = __ballot_sync(kWholeWarp, first_own() < kPer && start);
    }
  }

  __device__ bool starts_at(int u) const {
    const int group = static_cast<int>(threadIdx.x % kWarp) / kLanes * kLanes;
    return (starts[u % kOwn] >> (group + u / kOwn) & 1) != 0;
  }
  __device__ uint32_t code(int u) const { return __shfl_sync(kWholeWarp, codes[u % kOwn], u / kOwn, kLanes); }
};

// What the groups of a block share.
template <int kLanes, int kColumns, int kPer>
struct RowBlock {
  static constexpr int kGroups = kRowThreads / kLanes, kPlaces = kGroups * kPer, kWidth = kLanes * kColumns;
  float4 sums[kPlaces][kWidth / 4];     // of the run that starts at that place
  float4 heads[kRowWarps][kWidth / 4];  // sums of a warp's places up to the first start
  float scores[kPlaces], head_scores[kRowWarps];
  uint32_t run_rows[kPlaces];  // the runs that start in the block, in order
  uint16_t run_places[kPlaces];
  bool through[kRowWarps];  // no run starts in the warp
  int starts[kRowWarps];
  bool open_tail;

  static __device__ void keep(float4* to, float* score, const Sums<kColumns>& from) {
    const int lane = threadIdx.x % kLanes;
#pragma unroll
    for (int c = 0; c < kColumns; c += 4) {
      to[(lane * kColumns + c) / 4] =
          make_float4(from.values[c], from.values[c + 1], from.values[c + 2], from.values[c + 3]);
    }
    if (lane == 0) *score = from.score;
  }
  __device__ void keep_run(int place, const Sums<kColumns>& from) { keep(sums[place], scores + place, from); }
  __device__ void keep_head(int warp, const Sums<kColumns>& from) { keep(heads[warp], head_scores + warp, from); }

  // A run's sums in the columns of a writer's lane.
  __device__ Sums<kColumns> run(int place) const {
    Sums<kColumns> to;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      to.values[c] = reinterpret_cast<const float*>(sums[place])[threadIdx.x % kLanes + c * kLanes];
    }
    to.score = scores[place];
    return to;
  }

  // Adds the heads of the warps from `warp` on until a run starts. True when the block ends before.
  __device__ bool follow(int warp, Sums<kColumns>& to) const {
    for (; warp < kRowWarps; ++warp) {
      const auto* head = reinterpret_cast<const float*>(heads[warp]) + threadIdx.x % kLanes * kColumns;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) to.values[c] += head[c];
      to.score += head_scores[warp];
      if (!through[warp]) return false;
    }
    return true;
  }

  // Appends the warp's starts to the list. Returns the length of the whole list.
  __device__ int list_runs(const GroupPlaces<kLanes, kPer>& places) {
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    int at = 0, count = 0;
#pragma unroll
    for (int w = 0; w < kRowWarps; ++w) {
      if (w < warp) at += starts[w];
      count += starts[w];
    }
#pragma unroll
    for (const unsigned each : places.starts) at += __popc(each & ((1U << lane) - 1));
#pragma unroll
    for (int j = 0; j < places.kOwn; ++j) {
      if ((places.starts[j] >> lane & 1) == 0) continue;
      run_rows[at] = places.rows[j];
      run_places[at] = static_cast<uint16_t>(threadIdx.x / kLanes * kPer + places.first_own() + j);
      ++at;
    }
    return count;
  }
};

template <int kColumns>
__device__ Sums<kColumns> shifted_down(const Sums<kColumns>& from, int lanes) {
  Sums<kColumns> to;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) to.values[c] = __shfl_down_sync(kWholeWarp, from.values[c], lanes);
  to.score = __shfl_down_sync(kWholeWarp, from.score, lanes);
  return to;
}

// Blocks of a multiprocessor: as many as the registers of what is under way at once leave room for.
template <int kColumns, typename In, int kPer>
constexpr int row_blocks_at_once() {
  constexpr int loaded = kPer * (kColumns + kColumns * static_cast<int>(sizeof(In)) / 4 + 1), others = 24;
  return 65536 / kRowThreads / (loaded + others);
}

template <typename Writer, typename In, int kPer>
__global__ void __launch_bounds__(kRowThreads, row_blocks_at_once<Writer::kColumns, In, kPer>())
    add_rows_kernel(const Table table, const RowGradients task, const typename Writer::Sink sink, const Rest left,
                    const Aligned aligned, uint32_t total) {
  constexpr int kLanes = Writer::kLanes, kColumns = Writer::kColumns;
  using Block = RowBlock<kLanes, kColumns, kPer>;
  __shared__ Block block;
  const int lane = threadIdx.x % kLanes, group = threadIdx.x / kLanes;
  const int warp_lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const uint32_t begin = blockIdx.x * Block::kPlaces, end = begin + Block::kPlaces;
  const bool goes_on = end < total && task.sorted_rows[end] == task.sorted_rows[end - 1];
  GroupPlaces<kLanes, kPer> places;
  places.load(task, begin + group * kPer, total);
  LoadedPlaces<In, kColumns, kPer> loaded;
  {
    uint32_t codes[kPer];
#pragma unroll
    for (int u = 0; u < kPer; ++u) codes[u] = places.code(u);
    const int bits = task.code.field_bits;
    loaded.load(table, task, aligned, lane * kColumns, [&](int u) {
      return Place{codes[u] >> bits, codes[u] & ((1U << bits) - 1)};
    });
  }

  // The group's places: up to the first start, runs that lie between starts, and the run that is open at the end.
  Sums<kColumns> head, sums;
  head.clear();
  sums.clear();
  bool open = false;
  int place = 0;  // where the open run starts
#pragma unroll
  for (int u = 0; u < kPer; ++u) {
    const bool start = places.starts_at(u);
    if (start && open) block.keep_run(place, sums);
    if (start && !open) head = sums;
    if (start) sums.clear();
    open = open || start;
    place = start ? group * kPer + u : place;
    sums.add(loaded.gradient(u));
  }
  if (!open) head = sums;

  // The warp's groups: each head goes on as far as no run starts, and ends the open run of the group before.
  bool through = !open;
#pragma unroll
  for (int apart = kLanes; apart < kWarp; apart *= 2) {
    const Sums<kColumns> next = shifted_down(head, apart);
    const bool next_through = __shfl_down_sync(kWholeWarp, through, apart);
    if (!through || warp_lane + apart >= kWarp) continue;
    head.add(next);
    through = next_through;
  }
  bool leaves_warp = open;
  if constexpr (kLanes < kWarp) {
    const Sums<kColumns> next = shifted_down(head, kLanes);
    const bool next_through = __shfl_down_sync(kWholeWarp, through, kLanes);
    if (warp_lane + kLanes < kWarp) {
      sums.add(next);
      leaves_warp = open && next_through;
    }
  }
  if (open && !leaves_warp) block.keep_run(place, sums);
  if (warp_lane < kLanes) block.keep_head(warp, head);
  if (warp_lane == 0) {
    block.through[warp] = through;
    block.starts[warp] = 0;
#pragma unroll
    for (const unsigned each : places.starts) block.starts[warp] += __popc(each);
  }
  if (threadIdx.x == 0) block.open_tail = false;
  __syncthreads();

  // The block's warps.
  int runs = block.list_runs(places);
  const auto leave = [&](float* to) {
    to += static_cast<int64_t>(blockIdx.x) * (table.dim + 1);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (lane * kColumns + c < table.dim) to[lane * kColumns + c] = sums.values[c];
    }
    if (lane == 0) to[table.dim] = sums.score;
  };
  if (leaves_warp) {
    if (block.follow(warp + 1, sums) && goes_on) {
      leave(left.tails);
      if (lane == 0) {
        left.tail_rows[blockIdx.x] = task.sorted_rows[end - 1];
        block.open_tail = true;
      }
    } else {
      block.keep_run(place, sums);
    }
  }
  bool all_through = false;
  if (group == 0 && !places.starts_at(0)) {
    sums.clear();
    all_through = block.follow(0, sums) && goes_on;
    leave(left.heads);
  }
  __syncthreads();
  if (threadIdx.x == 0) left.flags[blockIdx.x] = (block.open_tail ? kTailOpen : 0) | (all_through ? kThrough : 0);
  if (block.open_tail || total < end) --runs;  // the last of the list goes on, or is not there

  const Writer writer(table, sink, task.sums != nullptr);
  for (int first = group; first < runs; first += Block::kGroups * Writer::kRowsAtOnce) {
    typename Writer::State states[Writer::kRowsAtOnce];
#pragma unroll
    for (int u = 0; u < Writer::kRowsAtOnce; ++u) {  // some are read in vain
      writer.read(block.run_rows[min(first + u * Block::kGroups, runs - 1)], states[u]);
    }
#pragma unroll
    for (int u = 0; u < Writer::kRowsAtOnce; ++u) {
      const int run = first + u * Block::kGroups;
      if (run < runs) writer.write(block.run_rows[run], block.run(block.run_places[run]), states[u]);
    }
  }
}

// One group of lanes per block that has an open tail. The 1: else the compiler would spare registers, and loads wait.
template <typename Writer>
__global__ void __launch_bounds__(kRowThreads, 1) join_rows_kernel(const Table table, const typename Writer::Sink sink,
                                                                   const Rest left, int blocks, bool interaction) {
  constexpr int kLanes = Writer::kLanes, kColumns = Writer::kColumns;
  constexpr int kCount = 64 / kColumns;  // heads under way at once
  const int from = (blockIdx.x * kRowThreads + threadIdx.x) / kLanes, lane = threadIdx.x % kLanes;
  if (from >= blocks || (left.flags[from] & kTailOpen) == 0) return;
  const int width = table.dim + 1;
  const auto read = [&](const float* rows, int64_t block, Sums<kColumns>& to) {
    to.clear();
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (lane + c * kLanes < table.dim) to.values[c] = rows[block * width + lane + c * kLanes];
    }
    to.score = rows[block * width + table.dim];
  };
  const Writer writer(table, sink, interaction);
  const uint32_t row = left.tail_rows[from];
  typename Writer::State state;
  writer.read(row, state);
  Sums<kColumns> sums;
  read(left.tails, from, sums);
  bool goes_on = true;
  for (int next = from + 1; goes_on && next < blocks; next += kCount) {
    Sums<kColumns> heads[kCount];
    uint8_t flags[kCount];
#pragma unroll
    for (int u = 0; u < kCount; ++u) {  // some are read in vain, none beyond the last block
      const int block = min(next + u, blocks - 1);
      flags[u] = left.flags[block];
      read(left.heads, block, heads[u]);
    }
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      if (!goes_on) heads[u].clear();  // rather than a branch, which the loads would be moved into
      sums.add(heads[u]);
      goes_on = goes_on && (flags[u] & kThrough) != 0;
    }
  }
  writer.write(row, sums, state);
}

Rest rest_in(void* scratch, int64_t blocks, int dim) {
  auto* floats = static_cast<float*>(scratch);
  Rest rest{floats, floats + blocks * (dim + 1), nullptr, nullptr};
  rest.tail_rows = reinterpret_cast<uint32_t*>(floats + 2 * blocks * (dim + 1));
  rest.flags = reinterpret_cast<uint8_t*>(rest.tail_rows + blocks);
  return rest;
}

// Calls run(kPer) with group_places() as a constant.
template <typename Shape, typename Run>
Status with_group_places(int64_t places, Run run) {
  if constexpr (Shape::kLanes > 1 && Shape::kColumns == 4) {
    if (group_places<Shape>(places) == 8) return run(std::integral_constant<int, 8>{});
  }
  return run(std::integral_constant<int, 4>{});
}

template <template <int, int> typename Writer>
Status add_rows(const Table& table, const RowGradients& task, const typename Writer<1, 4>::Sink& sink, Stream stream) {
  const int64_t total = task.batch * table.fields;
  if (total == 0) return cudaSuccess;
  return with_vector_shape(table.dim, [&](auto shape) {
    using S = decltype(shape);
    using W = Writer<S::kLanes, S::kColumns>;
    const unsigned blocks = row_blocks<S>(total);
    const Rest rest = rest_in(task.scratch, blocks, table.dim);
    const Status status = with_group_places<S>(total, [&](auto per) {
      return with_element(task.element, [&](auto element) {
        add_rows_kernel<W, decltype(element), decltype(per)::value><<<blocks, kRowThreads, 0, stream>>>(
            table, task, sink, rest, aligned_parts(table, task), static_cast<uint32_t>(total));
        return static_cast<Status>(cudaGetLastError());
      });
    });
    if (status != cudaSuccess) return status;
    join_rows_kernel<W><<<blocks_for(blocks, kRowThreads / S::kLanes), kRowThreads, 0, stream>>>(
        table, sink, rest, static_cast<int>(blocks), task.sums != nullptr);
    return static_cast<Status>(cudaGetLastError());
  });
}

}  // namespace
}  // namespace afm::cuda
