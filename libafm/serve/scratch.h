#pragma once

// Private: memory that a thread keeps between calls, so that scoring allocates once.

#include <cstddef>
#include <cstdint>

namespace afm::serve {

// Hands out pieces of one block. Copies are independent: a callee's pieces are free again when it returns.
class Scratch {
 public:
  explicit Scratch(float* begin) : next_(begin) {}

  // 64-byte aligned; its contents are not defined.
  float* take(int64_t floats) {
    float* piece = next_;
    next_ += padded(floats);
    return piece;
  }
  static constexpr int64_t padded(int64_t floats) { return (floats + 15) / 16 * 16; }

 private:
  float* next_;
};

// The calling thread's block, of at least that size; what an earlier call left in it is lost.
Scratch thread_scratch(int64_t floats);

}  // namespace afm::serve
