#include "libafm/nn/parallel.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

namespace afm::nn {
namespace {

// ThreadSanitizer cannot see how LibTorch's OpenMP, which is not compiled for it, starts and joins threads: these tell
// it, so that it finds the races of the tasks themselves. One place for all loops: a thread that would look for its own
// loop's reads what the loop's start wrote.
#ifdef __SANITIZE_THREAD__
char fork_place, join_place;
void announce_fork() { __tsan_release(&fork_place); }
void after_fork() { __tsan_acquire(&fork_place); }
void before_join() { __tsan_release(&join_place); }
void after_join() { __tsan_acquire(&join_place); }
#else
void announce_fork() {}
void after_fork() {}
void before_join() {}
void after_join() {}
#endif

// Also when a task throws.
template <void (*call)()>
struct AtEnd {
  ~AtEnd() { call(); }
};

}  // namespace

// Note [Threads of LibTorch]
// at::parallel_for is a template that runs serially in code compiled without OpenMP, and with OpenMP may bring a second
// runtime beside the one in the LibTorch wheel. The loop of a TensorIterator is compiled into LibTorch, so it runs in
// the very threads that its operators use; here it runs over the numbers of the tasks.
void parallel_for_each(int64_t count, c10::function_ref<void(int64_t)> work) {
  if (count <= 1 || at::get_num_threads() == 1 || at::in_parallel_region()) {
    for (int64_t task = 0; task < count; ++task) work(task);
    return;
  }
  const at::Tensor numbers = at::arange(count, at::kLong);
  // With two sizes, although there is one row: a loop of one size is wrapped in another, which ThreadSanitizer sees.
  const auto loop = [&](char** data, const int64_t* strides, int64_t size, int64_t rows) {
    after_fork();
    const AtEnd<before_join> end;
    for (int64_t i = 0; i < size * rows; ++i) work(*reinterpret_cast<const int64_t*>(data[0] + i * strides[0]));
  };
  const AtEnd<after_join> end;
  announce_fork();
  at::TensorIterator::borrowing_nullary_op(numbers).for_each(loop, /*grain_size=*/1);
}

void parallel_for_pieces(int64_t count, int64_t size, c10::function_ref<void(int64_t begin, int64_t end)> work) {
  parallel_for_each((count + size - 1) / size,
                    [&](int64_t piece) { work(piece * size, std::min(count, (piece + 1) * size)); });
}

}  // namespace afm::nn
