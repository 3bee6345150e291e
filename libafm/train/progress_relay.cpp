#include "libafm/train/progress_relay.h"

#include <utility>

namespace afm {

void ProgressRelay::post(int64_t model, const Progress& progress) {
  std::unique_lock lock(mutex_);
  if (on_progress_ && !error_) {
    Post post{model, &progress};
    posts_.push_back(&post);
    for_waiting_.notify_one();
    for_runs_.wait(lock, [&] { return post.done; });
  }
  if (error_) throw Stopped{};
}

void ProgressRelay::stop(std::exception_ptr error) {
  const std::lock_guard lock(mutex_);
  if (!error_) error_ = std::move(error);
}

bool ProgressRelay::is_stopped() const {
  const std::lock_guard lock(mutex_);
  return error_ != nullptr;
}

void ProgressRelay::serve(int64_t threads) {
  std::unique_lock lock(mutex_);
  while (true) {
    for_waiting_.wait(lock, [&] { return !posts_.empty() || left_ == threads; });
    if (posts_.empty()) break;
    Post& post = *posts_.front();
    posts_.pop_front();
    handle(post, lock);
  }
  if (error_) std::rethrow_exception(error_);
}

void ProgressRelay::handle(Post& post, std::unique_lock<std::mutex>& lock) {
  std::exception_ptr thrown;
  if (!error_) {
    lock.unlock();
    try {
      on_progress_(post.model, *post.progress);
    } catch (...) {
      thrown = std::current_exception();
    }
    lock.lock();
  }
  if (thrown && !error_) error_ = thrown;
  post.done = true;
  for_runs_.notify_all();
}

void ProgressRelay::leave() {
  const std::lock_guard lock(mutex_);
  ++left_;
  for_waiting_.notify_one();
}

}  // namespace afm
