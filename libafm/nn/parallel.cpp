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

// ThreadSanitizer cannot see how LibTorch's OpenMP, which is not compiled for it, starts and joins threads: these two
// tell it, so that it finds the races of the tasks themselves.
class ForkAndJoin {
 public:
#ifdef __SANITIZE_THREAD__
  ForkAndJoin() { __tsan_release(&fork_); }
  ~ForkAndJoin() { __tsan_acquire(&join_); }
  void begin() { __tsan_acquire(&fork_); }
  void end() { __tsan_release(&join_); }

 private:
  char fork_ = 0, join_ = 0;
#else
  void begin() {}
  void end() {}
#endif
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
  ForkAndJoin threads;
  at::TensorIterator::borrowing_nullary_op(numbers).for_each(
      [&](char** data, const int64_t* strides, int64_t size) {
        threads.begin();
        for (int64_t i = 0; i < size; ++i) work(*reinterpret_cast<const int64_t*>(data[0] + i * strides[0]));
        threads.end();
      },
      /*grain_size=*/1);
}

void parallel_for_pieces(int64_t count, int64_t size, c10::function_ref<void(int64_t begin, int64_t end)> work) {
  parallel_for_each((count + size - 1) / size,
                    [&](int64_t piece) { work(piece * size, std::min(count, (piece + 1) * size)); });
}

}  // namespace afm::nn
