#pragma once

// Private: seconds of work, with pauses.

#include <chrono>

namespace afm {

class Stopwatch {
 public:
  explicit Stopwatch(double seconds = 0.0) : before_(seconds) {}

  void pause() { before_ = seconds(), running_ = false; }
  void resume() { start_ = Clock::now(), running_ = true; }
  // Since resume(), and all before.
  double seconds() const {
    return before_ + (running_ ? std::chrono::duration<double>(Clock::now() - start_).count() : 0.0);
  }

 private:
  using Clock = std::chrono::steady_clock;
  double before_;
  bool running_ = false;
  Clock::time_point start_;
};

}  // namespace afm
