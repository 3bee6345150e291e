#pragma once

// Private: brings the progress of runs on threads of their own to the thread that waits for them.

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>

#include "libafm/train/fit_many.h"

namespace afm {

// Thrown in a run that is to end because another one failed.
struct Stopped {};

class ProgressRelay {
 public:
  explicit ProgressRelay(const ManyProgressCallback& on_progress) : on_progress_(on_progress) {}

  // On the thread of a run: waits until the callback is done. Throws Stopped.
  void post(int64_t model, const Progress& progress);
  // Whatever ends all runs; the first counts.
  void stop(std::exception_ptr error);
  bool is_stopped() const;

  // On the waiting thread: calls back until leave() was called `threads` times, then throws what stopped the runs.
  void serve(int64_t threads);
  void leave();

 private:
  struct Post {
    int64_t model;
    const Progress* progress;
    bool done = false;
  };
  void handle(Post& post, std::unique_lock<std::mutex>& lock);

  const ManyProgressCallback& on_progress_;
  mutable std::mutex mutex_;
  std::condition_variable for_waiting_, for_runs_;
  std::deque<Post*> posts_;
  int64_t left_ = 0;
  std::exception_ptr error_;
};

}  // namespace afm
