#include "libafm/serve/scratch.h"

#include <memory>
#include <new>

namespace afm::serve {
namespace {

constexpr std::align_val_t kAlignment{64};

struct Free {
  void operator()(float* memory) const { ::operator delete(memory, kAlignment); }
};

struct Block {
  std::unique_ptr<float, Free> memory;
  int64_t floats = 0;
};

}  // namespace

Scratch thread_scratch(int64_t floats) {
  thread_local Block block;
  if (block.floats < floats) {
    block.floats = 0;
    block.memory.reset();
    const std::size_t bytes = static_cast<std::size_t>(floats) * sizeof(float);
    block.memory.reset(static_cast<float*>(::operator new(bytes, kAlignment)));
    block.floats = floats;
  }
  return Scratch(block.memory.get());
}

}  // namespace afm::serve
