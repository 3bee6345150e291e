#include "libafm/nn/parallel.h"

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "tests/nn/gradient_check.h"

namespace afm::nn {
namespace {

TEST_CASE("every task runs once, for any number of tasks and threads") {
  for (const int threads : {1, 2, 4}) {
    const ThreadCount guard(threads);
    for (const int64_t count : {0, 1, 2, 3, 100}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(count));
      parallel_for_each(count, [&](int64_t task) { ++runs[static_cast<std::size_t>(task)]; });
      for (const auto& run : runs) CHECK(run == 1);
    }
  }
}

TEST_CASE("pieces cover the range in a partition that the threads do not change") {
  for (const int threads : {1, 2}) {
    const ThreadCount guard(threads);
    std::mutex mutex;
    std::set<std::pair<int64_t, int64_t>> pieces;
    parallel_for_pieces(10, 4, [&](int64_t begin, int64_t end) {
      const std::scoped_lock lock(mutex);
      pieces.emplace(begin, end);
    });
    CHECK(pieces == std::set<std::pair<int64_t, int64_t>>{{0, 4}, {4, 8}, {8, 10}});
  }
}

TEST_CASE("tasks run at the same time on LibTorch's threads") {
  const auto threads_used = [](int threads) {
    const ThreadCount guard(threads);
    std::mutex mutex;
    std::set<std::thread::id> seen;
    parallel_for_each(8, [&](int64_t) {
      const std::scoped_lock lock(mutex);
      seen.insert(std::this_thread::get_id());
    });
    return seen.size();
  };
  CHECK(threads_used(2) == 2);
  CHECK(threads_used(1) == 1);
}

TEST_CASE("what a task throws reaches the caller") {
  const ThreadCount guard(2);
  CHECK_THROWS_AS(parallel_for_each(8,
                                    [](int64_t task) {
                                      if (task == 5) throw std::runtime_error("task 5");
                                    }),
                  std::runtime_error);
}

}  // namespace
}  // namespace afm::nn
