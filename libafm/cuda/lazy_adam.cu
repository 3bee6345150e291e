#include "libafm/cuda/lazy_adam.h"

#include "libafm/cuda/lazy_rows.cuh"
#include "libafm/cuda/shapes.cuh"

namespace afm::cuda {
namespace {

constexpr int kHistoryThreads = 256;
constexpr unsigned kMostTableBlocks = 1U << 20;
static_assert(kStepsThatCount <= kHistoryThreads);

__device__ AdamStep step_of(double rate, double number) {
  return {static_cast<float>(rate / (1 - pow(kAdamBeta1, number))),
          static_cast<float>(1 / sqrt(1 - pow(kAdamBeta2, number)))};
}

__global__ void __launch_bounds__(kHistoryThreads) start_kernel(const AdamHistory history) {
  for (int n = blockIdx.x * kHistoryThreads + threadIdx.x; n <= history.capacity; n += gridDim.x * kHistoryThreads) {
    history.decays[n] = {static_cast<float>(pow(kAdamBeta1, static_cast<double>(n))),
                         static_cast<float>(pow(kAdamBeta2, static_cast<double>(n)))};
  }
}

__global__ void begin_kernel(const AdamHistory history, const float* rate) {
  *history.now = step_of(*rate, history.count->steps + 1);
}

// One block. Thread i adds the step to the sums of the t0 that lies i + 1 steps back.
__global__ void __launch_bounds__(kHistoryThreads)
    end_kernel(const AdamHistory history, const float* rate, bool with_sums) {
  const int step = history.count->steps + 1, first = history.count->first;
  if (step - first > history.capacity) __trap();  // the history was not forgotten in time
  const int back = static_cast<int>(threadIdx.x) + 1, from = step - back;
  const int oldest =
      max(max(first, step - static_cast<int>(kStepsThatCount)), min(static_cast<int>(kExactSteps), step));
  if (with_sums && from >= oldest) {
    const double root = sqrt(1 - pow(kAdamBeta2, static_cast<double>(step)));
    const double size = *rate / (1 - pow(kAdamBeta1, static_cast<double>(step)));
    const double u = root / pow(kAdamBeta2, 0.5 * back);
    MissedSums& sums = history.sums[from - first];
    add_missed(sums, back == 1, u, size * pow(kAdamBeta1, static_cast<double>(back)) * u);
    history.missed[from - first] = missed_of(sums);
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  history.each[step - first - 1] = *history.now;
  history.rates[step - first - 1] = *rate;
  history.count->steps = step;
}

__global__ void forget_kernel(const AdamHistory history) { history.count->first = history.count->steps; }

// A thread per value of the table. With `steps`: the step under way, too.
__global__ void __launch_bounds__(kHistoryThreads)
    table_kernel(const Table table, const LazyAdam adam, const float* gradient, bool takes_step) {
  const int64_t total = table.row_count * table.stride;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kHistoryThreads;
  const int steps = adam.history.count->steps;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * kHistoryThreads + threadIdx.x; at < total; at += step) {
    const int behind = adam.behind[at / table.stride];
    const bool owes = !owes_nothing(adam, behind, steps);
    if (!owes && !takes_step) continue;
    float value = table.rows[at], mean = adam.means[at], square = adam.squares[at];
    if (owes) catch_up(value, mean, square, owed_steps(adam, behind), adam.l2);
    if (takes_step) {
      take_step(value, mean, square, gradient != nullptr ? gradient[at] : 0.0F, adam.l2, *adam.history.now);
    }
    table.rows[at] = value;
    adam.means[at] = mean;
    adam.squares[at] = square;
  }
}

// After table_kernel(): a row that no gradient has reached stays so unless the step has reached it.
__global__ void __launch_bounds__(kHistoryThreads)
    settle_kernel(const Table table, const LazyAdam adam, bool takes_step) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kHistoryThreads;
  const int steps = adam.history.count->steps;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * kHistoryThreads + threadIdx.x; row < table.row_count;
       row += step) {
    if (takes_step || !owes_nothing(adam, adam.behind[row], steps)) adam.behind[row] = steps + (takes_step ? 1 : 0);
  }
}

unsigned table_blocks(int64_t count) {
  const int64_t blocks = (count + kHistoryThreads - 1) / kHistoryThreads;
  return blocks < kMostTableBlocks ? static_cast<unsigned>(blocks) : kMostTableBlocks;
}

Status all_rows(const Table& table, const LazyAdam& adam, const float* gradient, bool takes_step, Stream stream) {
  table_kernel<<<table_blocks(table.row_count * table.stride), kHistoryThreads, 0, stream>>>(table, adam, gradient,
                                                                                             takes_step);
  if (const auto status = cudaGetLastError(); status != cudaSuccess) return status;
  settle_kernel<<<table_blocks(table.row_count), kHistoryThreads, 0, stream>>>(table, adam, takes_step);
  return cudaGetLastError();
}

// Cuts pieces from a block of memory.
class Cutter {
 public:
  explicit Cutter(void* memory) : at_(static_cast<char*>(memory)) {}
  template <typename T>
  T* cut(size_t count) {
    T* piece = reinterpret_cast<T*>(at_);
    at_ += (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return piece;
  }
  size_t used(void* memory) const { return static_cast<size_t>(at_ - static_cast<char*>(memory)); }

 private:
  static constexpr size_t kAlignment = 16;
  char* at_;
};

AdamHistory cut_history(Cutter& cutter, AdamCount* count, float* rates, int32_t capacity) {
  const auto size = static_cast<size_t>(capacity);
  AdamHistory history{count, rates, nullptr, nullptr, nullptr, nullptr, nullptr, capacity};
  history.now = cutter.cut<AdamStep>(1);
  history.each = cutter.cut<AdamStep>(size);
  history.sums = cutter.cut<MissedSums>(size + 1);
  history.missed = cutter.cut<MissedSteps>(size + 1);
  history.decays = cutter.cut<AdamDecay>(size + 1);
  return history;
}

}  // namespace

size_t history_bytes(int32_t capacity) {
  alignas(16) char none[16];
  Cutter cutter(none);
  cut_history(cutter, nullptr, nullptr, capacity);
  return cutter.used(none);
}

AdamHistory history_in(void* memory, AdamCount* count, float* rates, int32_t capacity) {
  Cutter cutter(memory);
  return cut_history(cutter, count, rates, capacity);
}

Status start_history(const AdamHistory& history, Stream stream) {
  start_kernel<<<table_blocks(history.capacity + 1), kHistoryThreads, 0, stream>>>(history);
  return cudaGetLastError();
}

Status begin_step(const AdamHistory& history, const float* rate, Stream stream) {
  begin_kernel<<<1, 1, 0, stream>>>(history, rate);
  return cudaGetLastError();
}

Status step_adam_table(const Table& table, const float* gradient, const LazyAdam& adam, Stream stream) {
  return all_rows(table, adam, gradient, /*takes_step=*/true, stream);
}

Status end_step(const AdamHistory& history, const float* rate, bool with_sums, Stream stream) {
  end_kernel<<<1, kHistoryThreads, 0, stream>>>(history, rate, with_sums);
  return cudaGetLastError();
}

Status catch_up_table(const Table& table, const LazyAdam& adam, Stream stream) {
  if (const Status status = all_rows(table, adam, nullptr, /*takes_step=*/false, stream); status != cudaSuccess) {
    return status;
  }
  forget_kernel<<<1, 1, 0, stream>>>(adam.history);
  return cudaGetLastError();
}

}  // namespace afm::cuda
