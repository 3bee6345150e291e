#pragma once

// Private: what LibTorch has one of per process, for runs beside one another: default generators, and whether products
// of float32 on a GPU may be TF32.

#include <mutex>
#include <optional>

#include <ATen/core/Generator.h>
#include <c10/core/Device.h>

#include "libafm/nn/dropout_generator.h"

namespace afm {

// A run's own, on the thread that made it.
class Lane {
 public:
  // `others` null: the run is alone in the process and draws from the default generators. Else it has generators of its
  // own, and others hold the same mutex.
  explicit Lane(at::Device device, std::mutex* others = nullptr);

  // What hands work to the GPU that may be random or a matrix product does so within a turn: that work is then drawn
  // from the run's generator and rounded as it says. A recorded step needs none, as it has kept both.
  class Turn {
   public:
    Turn(const Lane& lane, bool tf32);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    std::unique_lock<std::mutex> lock_;
    at::Generator generator_, state_before_;  // of the GPU; undefined where the run is alone
    bool on_gpu_, tf32_before_ = false;
  };
  [[nodiscard]] Turn turn(bool tf32 = false) const { return {*this, tf32}; }

 private:
  at::Device device_;
  std::mutex* others_;
  at::Generator on_gpu_;
  std::optional<nn::DropoutGeneratorScope> on_cpu_;
};

}  // namespace afm
