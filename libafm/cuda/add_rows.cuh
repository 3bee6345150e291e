#pragma once

// Private: adds up the gradients of a batch row by row, see Note [Deterministic rows], and hands each row's sum to a
// writer: RowWriter (row_writer.cuh) or AdamRowWriter (lazy_rows.cuh).

#include "libafm/cuda/place_gradients.cuh"
#include "libafm/cuda/row_writer.cuh"
#include "libafm/cuda/shapes.cuh"
#include "libafm/cuda/table.h"

namespace afm::cuda {
namespace {

constexpr int kRowThreads = 256;
constexpr int64_t kSmallBatch = int64_t{1} << 19;  // places; below it shorter stretches fill the chip better

// What blocks leave for the launch that joins their runs.
struct Rest {
  float *heads, *tails;  // [blocks, D + 1] sums, then that of the score's gradient
  uint32_t* tail_rows;   // [blocks]
  uint8_t* flags;        // [blocks]
};
constexpr uint8_t kTailOpen = 1;  // the last run goes on in the next block and began here
constexpr uint8_t kThrough = 2;   // one run, from the block before to the next

int64_t stretch_of(int64_t places) { return places < kSmallBatch ? 8 : 64; }

int64_t block_places(int64_t places, int lanes) { return kRowThreads / lanes * stretch_of(places); }

// The gradients of a few places, and the rows that begin a run there, loaded before any is used.
template <typename Writer, typename In, int kCount>
struct Places {
  static constexpr int kLanes = Writer::kLanes, kColumns = Writer::kColumns;
  uint32_t row[kCount];
  bool starts[kCount];
  Sums<kColumns> sums[kCount];
  typename Writer::State state[kCount];

  // `before`: the row of the place before; `none`: there is none in this stretch.
  __device__ void load(const Table& table, const RowGradients& task, const Writer& writer, Aligned aligned,
                       int64_t begin, int64_t end, uint32_t before, bool none) {
    uint32_t code[kCount];
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      const bool exists = begin + u < end;
      row[u] = exists ? task.sorted_rows[begin + u] : 0;
      code[u] = exists ? task.sorted_places[begin + u] : 0;
    }
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      sums[u].clear();
      starts[u] = false;
      if (begin + u >= end) continue;
      starts[u] = u == 0 ? none || row[0] != before : row[u] != row[u - 1];
      if (starts[u]) writer.read(row[u], state[u]);
      const uint32_t sample = code[u] >> task.code.field_bits, field = code[u] & ((1U << task.code.field_bits) - 1);
      load_place<In>(table, task, aligned, sample, static_cast<int>(field), threadIdx.x % kLanes * kColumns, sums[u]);
    }
  }
};

template <int kLanes, int kColumns>
struct BlockRest {
  static constexpr int kGroups = kRowThreads / kLanes, kWidth = kLanes * kColumns + 1;
  float heads[kGroups][kWidth], tails[kGroups][kWidth];
  uint32_t tail_rows[kGroups];
  bool has_head[kGroups], has_tail[kGroups], through[kGroups];
};

template <int kLanes, int kColumns>
__device__ void keep_sums(float* to, const Sums<kColumns>& sums) {
  const int lane = threadIdx.x % kLanes;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) to[lane * kColumns + c] = sums.values[c];
  if (lane == 0) to[kLanes * kColumns] = sums.score;
}

template <int kLanes, int kColumns>
__device__ void add_sums(const float* from, Sums<kColumns>& sums) {
  const int lane = threadIdx.x % kLanes;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) sums.values[c] += from[lane * kColumns + c];
  sums.score += from[kLanes * kColumns];
}

// Adds up one group's stretch: runs that lie in it are written, the others left in `rest`.
template <typename Writer, typename In>
__device__ void add_stretch(const Table& table, const RowGradients& task, const Writer& writer, Aligned aligned,
                            int64_t begin, int64_t end, int64_t total,
                            BlockRest<Writer::kLanes, Writer::kColumns>& rest) {
  constexpr int kLanes = Writer::kLanes, kColumns = Writer::kColumns;
  constexpr int kCount = kColumns == 4 ? 4 : 2;
  const int group = threadIdx.x / kLanes;
  bool has_head = false, has_tail = false, through = false;
  if (begin < end) {
    uint32_t current = 0;
    bool none = true, is_head = begin > 0 && task.sorted_rows[begin - 1] == task.sorted_rows[begin];
    Sums<kColumns> sums;
    typename Writer::State state;
    const auto close = [&] {
      if (is_head) {
        keep_sums<kLanes, kColumns>(rest.heads[group], sums);
        has_head = true;
        is_head = false;
      } else {
        writer.write(current, sums, state);
      }
    };
    for (int64_t at = begin; at < end; at += kCount) {
      Places<Writer, In, kCount> places;
      places.load(table, task, writer, aligned, at, end, current, none);
#pragma unroll
      for (int u = 0; u < kCount; ++u) {
        if (at + u >= end) continue;
        if (places.starts[u]) {
          if (!none) close();
          none = false;
          current = places.row[u];
          state = places.state[u];
          sums.clear();
        }
#pragma unroll
        for (int c = 0; c < kColumns; ++c) sums.values[c] += places.sums[u].values[c];
        sums.score += places.sums[u].score;
      }
    }
    if (end < total && task.sorted_rows[end] == current) {
      through = is_head;
      has_tail = !is_head;
      if (is_head) {
        close();
      } else {
        keep_sums<kLanes, kColumns>(rest.tails[group], sums);
        if (threadIdx.x % kLanes == 0) rest.tail_rows[group] = current;
      }
    } else {
      close();
    }
  }
  if (threadIdx.x % kLanes != 0) return;
  rest.has_head[group] = has_head;
  rest.has_tail[group] = has_tail;
  rest.through[group] = through;
}

// Adds the heads of the groups from `group` on until one ends there. True when the run leaves the block.
template <int kLanes, int kColumns>
__device__ bool follow(const BlockRest<kLanes, kColumns>& rest, int group, Sums<kColumns>& sums) {
  for (; group < rest.kGroups; ++group) {
    add_sums<kLanes, kColumns>(rest.heads[group], sums);
    if (!rest.through[group]) return false;
  }
  return true;
}

template <typename Writer, typename In>
__global__ void __launch_bounds__(kRowThreads)
    add_rows_kernel(const Table table, const RowGradients task, const typename Writer::Sink sink, const Rest left,
                    const Aligned aligned, int64_t total, int64_t stretch) {
  constexpr int kLanes = Writer::kLanes, kColumns = Writer::kColumns;
  using Block = BlockRest<kLanes, kColumns>;
  __shared__ Block rest;
  const int group = threadIdx.x / kLanes;
  const Writer writer(table, sink, task.sums != nullptr);
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) * Block::kGroups + group) * stretch;
  add_stretch<Writer, In>(table, task, writer, aligned, begin, min(begin + stretch, total), total, rest);
  __syncthreads();

  const int64_t place = static_cast<int64_t>(blockIdx.x) * (table.dim + 1);
  const auto leave = [&](float* to, const Sums<kColumns>& sums) {
    const int lane = threadIdx.x % kLanes;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (lane * kColumns + c < table.dim) to[place + lane * kColumns + c] = sums.values[c];
    }
    if (lane == 0) to[place + table.dim] = sums.score;
  };
  // The block's flags have two writers: its first group (through) and the group of an open tail; they exclude each
  // other, and the first group writes whenever there is no open tail.
  bool open_tail = false;
  if (rest.has_tail[group]) {
    Sums<kColumns> sums;
    sums.clear();
    add_sums<kLanes, kColumns>(rest.tails[group], sums);
    open_tail = follow<kLanes, kColumns>(rest, group + 1, sums);
    if (open_tail) {
      leave(left.tails, sums);
      if (threadIdx.x % kLanes == 0) left.tail_rows[blockIdx.x] = rest.tail_rows[group];
    } else {
      typename Writer::State state;
      writer.read(rest.tail_rows[group], state);
      writer.write(rest.tail_rows[group], sums, state);
    }
  }
  bool through = false;
  if (group == 0 && rest.has_head[0]) {
    Sums<kColumns> sums;
    sums.clear();
    through = follow<kLanes, kColumns>(rest, 0, sums);
    leave(left.heads, sums);
  }
  const int any_open = __syncthreads_or(open_tail ? 1 : 0);
  if (threadIdx.x == 0) left.flags[blockIdx.x] = (any_open != 0 ? kTailOpen : 0) | (through ? kThrough : 0);
}

// One group of lanes per block that has an open tail.
template <typename Writer>
__global__ void __launch_bounds__(kRowThreads) join_rows_kernel(const Table table, const typename Writer::Sink sink,
                                                                const Rest left, int blocks, bool interaction) {
  constexpr int kLanes = Writer::kLanes, kColumns = Writer::kColumns;
  constexpr int kCount = kColumns == 4 ? 4 : 2;
  const int from = (blockIdx.x * kRowThreads + threadIdx.x) / kLanes, d = threadIdx.x % kLanes * kColumns;
  if (from >= blocks || (left.flags[from] & kTailOpen) == 0) return;
  const int width = table.dim + 1;
  Sums<kColumns> sums;
  const auto read = [&](const float* rows, int64_t block, Sums<kColumns>& to) {
    to.clear();
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (d + c < table.dim) to.values[c] = rows[block * width + d + c];
    }
    to.score = rows[block * width + table.dim];
  };
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
      if (!goes_on) continue;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) sums.values[c] += heads[u].values[c];
      sums.score += heads[u].score;
      goes_on = (flags[u] & kThrough) != 0;
    }
  }
  const Writer writer(table, sink, interaction);
  typename Writer::State state;
  writer.read(left.tail_rows[from], state);
  writer.write(left.tail_rows[from], sums, state);
}

Rest rest_in(void* scratch, int64_t blocks, int dim) {
  auto* floats = static_cast<float*>(scratch);
  Rest rest{floats, floats + blocks * (dim + 1), nullptr, nullptr};
  rest.tail_rows = reinterpret_cast<uint32_t*>(floats + 2 * blocks * (dim + 1));
  rest.flags = reinterpret_cast<uint8_t*>(rest.tail_rows + blocks);
  return rest;
}

template <template <int, int> typename Writer>
Status add_rows(const Table& table, const RowGradients& task, const typename Writer<1, 4>::Sink& sink, Stream stream) {
  const int64_t total = task.batch * table.fields;
  if (total == 0) return cudaSuccess;
  return with_vector_shape(table.dim, [&](auto shape) {
    using S = decltype(shape);
    using W = Writer<S::kLanes, S::kColumns>;
    const unsigned blocks = blocks_for(total, block_places(total, S::kLanes));
    const Rest rest = rest_in(task.scratch, blocks, table.dim);
    const Status status = with_element(task.element, [&](auto element) {
      add_rows_kernel<W, decltype(element)><<<blocks, kRowThreads, 0, stream>>>(
          table, task, sink, rest, aligned_parts(table, task), total, stretch_of(total));
      return static_cast<Status>(cudaGetLastError());
    });
    if (status != cudaSuccess) return status;
    join_rows_kernel<W><<<blocks_for(blocks, kRowThreads / S::kLanes), kRowThreads, 0, stream>>>(
        table, sink, rest, static_cast<int>(blocks), task.sums != nullptr);
    return static_cast<Status>(cudaGetLastError());
  });
}

}  // namespace
}  // namespace afm::cuda
