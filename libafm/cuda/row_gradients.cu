#include "libafm/cuda/shapes.cuh"
#include "libafm/cuda/table.h"

namespace afm::cuda {
namespace {

constexpr int kRowThreads = 256;
constexpr int64_t kSmallBatch = int64_t{1} << 19;  // places; below it shorter stretches fill the chip better

// Where the gradient of a row goes: into a table, or into a step of Adagrad when `squares` is set.
struct Sink {
  float* gradient;
  Adagrad adagrad;
};

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

template <int kLanes>
__device__ unsigned lanes_mask() {
  if constexpr (kLanes == kWarp) {
    return 0xffffffffU;
  } else {
    return ((1U << kLanes) - 1) << (threadIdx.x % kWarp / kLanes * kLanes);
  }
}

// Sums over one run: of each value's gradient, and of the score's.
template <int kColumns>
struct Sums {
  float values[kColumns];
  float score;
  __device__ void clear() {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) values[c] = 0;
    score = 0;
  }
};

// Values [d, d + kColumns) of a row of `dim`; `vectors`: rows begin and end at a multiple of 4 values, aligned so.
template <int kColumns, typename T>
__device__ void load_values(const T* row, int d, int dim, bool vectors, float (&to)[kColumns]) {
  if (vectors) {
#pragma unroll
    for (int c = 0; c < kColumns; c += 4) {
      if (d + c >= dim) continue;
      const auto four = *reinterpret_cast<const Vector<T, 4>*>(row + d + c);
#pragma unroll
      for (int i = 0; i < 4; ++i) to[c + i] = to_float(four.values[i]);
    }
  } else {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (d + c < dim) to[c] = to_float(row[d + c]);
    }
  }
}

// What a step needs of a row as it is.
template <int kColumns>
struct RowState {
  float values[kColumns];
  float wide, square, wide_square;
};

// A group of lanes at its row.
template <int kLanes, int kColumns>
class RowWriter {
 public:
  __device__ RowWriter(const Table& table, const Sink& sink, bool interaction)
      : table_(table), sink_(sink), interaction_(interaction), lane_(threadIdx.x % kLanes) {}

  __device__ void read(uint32_t number, RowState<kColumns>& state) const {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) state.values[c] = 0;
    const bool steps = sink_.adagrad.squares != nullptr;
    const float* row = table_.rows + static_cast<int64_t>(number) * table_.stride;
    if (interaction_ || steps) load_values<kColumns>(row, lane_ * kColumns, table_.dim, false, state.values);
    if (!steps) return;
    const float* squares = squares_of(number);
    state.square = *squares;
    if (!has_wide() || lane_ != 0) return;
    state.wide = row[table_.dim];
    state.wide_square = squares[1];
  }

  // d score / d e_f = sum - e_f: the sum is in `sums`, the row counts once for the whole run.
  __device__ void write(uint32_t number, const Sums<kColumns>& sums, const RowState<kColumns>& state) const {
    float gradient[kColumns];
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      gradient[c] = sums.values[c] - (interaction_ ? state.values[c] * sums.score : 0.0F);
    }
    const int64_t start = static_cast<int64_t>(number) * table_.stride;
    if (sink_.adagrad.squares == nullptr) {
      keep(sink_.gradient + start, gradient, sums.score);
    } else {
      step(number, table_.rows + start, gradient, sums.score, state);
    }
  }

 private:
  __device__ bool has_wide() const { return table_.stride > table_.dim; }
  __device__ float* squares_of(uint32_t number) const {
    return sink_.adagrad.squares + static_cast<int64_t>(number) * (has_wide() ? 2 : 1);
  }

  __device__ void keep(float* to, const float (&gradient)[kColumns], float score) const {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int d = lane_ * kColumns + c;
      if (d < table_.dim) to[d] = gradient[c];
    }
    if (has_wide() && lane_ == 0) to[table_.dim] = score;
  }

  __device__ void step(uint32_t number, float* row, float (&gradient)[kColumns], float score,
                       const RowState<kColumns>& state) const {
    const Adagrad& adagrad = sink_.adagrad;
    const float rate = *adagrad.rate * adagrad.scale;
    float total = 0;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (lane_ * kColumns + c >= table_.dim) gradient[c] = 0;
      gradient[c] += adagrad.l2 * state.values[c];
      total += gradient[c] * gradient[c];
    }
#pragma unroll
    for (int apart = kLanes / 2; apart > 0; apart /= 2) total += __shfl_xor_sync(lanes_mask<kLanes>(), total, apart);
    if (total > 0) {
      const float sum = state.square + total / static_cast<float>(table_.dim);
      const float by = rate / (sqrtf(sum) + adagrad.epsilon);
      if (lane_ == 0) *squares_of(number) = sum;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int d = lane_ * kColumns + c;
        if (d < table_.dim) row[d] = state.values[c] - by * gradient[c];
      }
    }
    if (!has_wide() || lane_ != 0) return;
    const float wide = score + adagrad.l2 * state.wide;
    if (wide == 0) return;
    const float sum = state.wide_square + wide * wide;
    squares_of(number)[1] = sum;
    row[table_.dim] = state.wide - rate / (sqrtf(sum) + adagrad.epsilon) * wide;
  }

  const Table& table_;
  const Sink& sink_;
  const bool interaction_;
  const int lane_;
};

// What may be read in vectors.
struct Aligned {
  bool input, sums;
};

// The gradients of a few places, and the rows that begin a run there, loaded before any is used.
template <int kLanes, int kColumns, typename In, int kCount>
struct Places {
  uint32_t row[kCount];
  bool starts[kCount];
  Sums<kColumns> sums[kCount];
  RowState<kColumns> state[kCount];

  // `before`: the row of the place before; `none`: there is none in this stretch.
  __device__ void load(const Table& table, const RowGradients& task, const RowWriter<kLanes, kColumns>& writer,
                       Aligned aligned, int64_t begin, int64_t end, uint32_t before, bool none) {
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
      load_place(table, task, aligned, code[u], sums[u]);
    }
  }

 private:
  __device__ void load_place(const Table& table, const RowGradients& task, Aligned aligned, uint32_t code,
                             Sums<kColumns>& to) const {
    const int d = threadIdx.x % kLanes * kColumns;
    const uint32_t sample = code >> task.code.field_bits, field = code & ((1U << task.code.field_bits) - 1);
    if (task.score != nullptr) to.score = task.score[sample];
    if (task.input != nullptr) {
      const In* input = static_cast<const In*>(task.input) + sample * task.input_stride + field * table.dim;
      load_values<kColumns>(input, d, table.dim, aligned.input, to.values);
    }
    if (task.sums == nullptr) return;
    float sum[kColumns] = {};
    load_values<kColumns>(task.sums + static_cast<int64_t>(sample) * table.dim, d, table.dim, aligned.sums, sum);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) to.values[c] += to.score * sum[c];
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
template <int kLanes, int kColumns, typename In>
__device__ void add_stretch(const Table& table, const RowGradients& task, const RowWriter<kLanes, kColumns>& writer,
                            Aligned aligned, int64_t begin, int64_t end, int64_t total,
                            BlockRest<kLanes, kColumns>& rest) {
  constexpr int kCount = kColumns == 4 ? 4 : 2;
  const int group = threadIdx.x / kLanes;
  bool has_head = false, has_tail = false, through = false;
  if (begin < end) {
    uint32_t current = 0;
    bool none = true, is_head = begin > 0 && task.sorted_rows[begin - 1] == task.sorted_rows[begin];
    Sums<kColumns> sums;
    RowState<kColumns> state;
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
      Places<kLanes, kColumns, In, kCount> places;
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

template <int kLanes, int kColumns, typename In>
__global__ void __launch_bounds__(kRowThreads)
    add_rows_kernel(const Table table, const RowGradients task, const Sink sink, const Rest left, const Aligned aligned,
                    int64_t total, int64_t stretch) {
  using Block = BlockRest<kLanes, kColumns>;
  __shared__ Block rest;
  const int group = threadIdx.x / kLanes;
  const RowWriter<kLanes, kColumns> writer(table, sink, task.sums != nullptr);
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) * Block::kGroups + group) * stretch;
  add_stretch<kLanes, kColumns, In>(table, task, writer, aligned, begin, min(begin + stretch, total), total, rest);
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
      RowState<kColumns> state;
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
template <int kLanes, int kColumns>
__global__ void __launch_bounds__(kRowThreads)
    join_rows_kernel(const Table table, const Sink sink, const Rest left, int blocks, bool interaction) {
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
  const RowWriter<kLanes, kColumns> writer(table, sink, interaction);
  RowState<kColumns> state;
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

bool is_aligned(const void* pointer, int values, Element element) {
  const int bytes = element == Element::kFloat ? 4 : 2;
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(values * bytes) == 0;
}

Aligned aligned_parts(const Table& table, const RowGradients& task) {
  const bool fours = table.dim % 4 == 0;
  return {fours && task.input_stride % 4 == 0 && is_aligned(task.input, 4, task.element),
          fours && is_aligned(task.sums, 4, Element::kFloat)};
}

Status add_rows(const Table& table, const RowGradients& task, const Sink& sink, Stream stream) {
  const int64_t total = task.batch * table.fields;
  if (total == 0) return cudaSuccess;
  return with_vector_shape(table.dim, [&](auto shape) {
    using S = decltype(shape);
    const unsigned blocks = blocks_for(total, block_places(total, S::kLanes));
    const Rest rest = rest_in(task.scratch, blocks, table.dim);
    const Status status = with_element(task.element, [&](auto element) {
      add_rows_kernel<S::kLanes, S::kColumns, decltype(element)><<<blocks, kRowThreads, 0, stream>>>(
          table, task, sink, rest, aligned_parts(table, task), total, stretch_of(total));
      return static_cast<Status>(cudaGetLastError());
    });
    if (status != cudaSuccess) return status;
    join_rows_kernel<S::kLanes, S::kColumns><<<blocks_for(blocks, kRowThreads / S::kLanes), kRowThreads, 0, stream>>>(
        table, sink, rest, static_cast<int>(blocks), task.sums != nullptr);
    return static_cast<Status>(cudaGetLastError());
  });
}

}  // namespace

size_t gradient_scratch(int64_t places, int dim) {
  if (places == 0) return 0;
  size_t blocks = 0;
  with_vector_shape(dim, [&](auto shape) {
    blocks = blocks_for(places, block_places(places, decltype(shape)::kLanes));
    return static_cast<Status>(cudaSuccess);
  });
  return blocks * (2 * sizeof(float) * static_cast<size_t>(dim + 1) + sizeof(uint32_t) + 1);
}

Status write_gradients(const Table& table, const RowGradients& task, float* gradient, Stream stream) {
  return add_rows(table, task, {gradient, {}}, stream);
}

Status step_adagrad(const Table& table, const RowGradients& task, const Adagrad& adagrad, Stream stream) {
  return add_rows(table, task, {nullptr, adagrad}, stream);
}

}  // namespace afm::cuda
