#include "libafm/train/lane.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>

namespace afm {

Lane::Lane(at::Device device, std::mutex* others) : device_(device), others_(others) {
  if (others_ == nullptr) return;
  on_cpu_.emplace(at::make_generator<at::CPUGeneratorImpl>());
  if (!device_.is_cuda()) return;
  const std::lock_guard lock(*others_);
  on_gpu_ = at::globalContext().defaultGenerator(device_).clone();
}

// Note [Generator of a GPU]
// Operators on a GPU draw from the default generator, and a recorded graph from the state that this generator had when
// it was recorded. The state is an object that can be exchanged for another: a graph keeps the run's own.
Lane::Turn::Turn(const Lane& lane, bool tf32) : on_gpu_(lane.device_.is_cuda()) {
  if (!on_gpu_) return;
  auto& context = at::globalContext();
  if (lane.others_ != nullptr) {
    lock_ = std::unique_lock(*lane.others_);
    generator_ = context.defaultGenerator(lane.device_);
    state_before_ = generator_.graphsafe_get_state();
    generator_.graphsafe_set_state(lane.on_gpu_);
  }
  tf32_before_ = context.allowTF32CuBLAS();
  if (tf32 && !tf32_before_) context.setAllowTF32CuBLAS(true);
}

Lane::Turn::~Turn() {
  if (!on_gpu_) return;
  auto& context = at::globalContext();
  if (context.allowTF32CuBLAS() != tf32_before_) context.setAllowTF32CuBLAS(tf32_before_);
  if (generator_.defined()) generator_.graphsafe_set_state(state_before_);
}

}  // namespace afm
