#pragma once

// Private: a training step recorded once as a CUDA graph and repeated.

#include <functional>
#include <memory>

#include <c10/core/Device.h>
#include <torch/nn/module.h>

namespace afm {

class GraphedStep {
 public:
  // Null in a build without AFM_CUDA.
  static std::unique_ptr<GraphedStep> make(at::Device device);
  virtual ~GraphedStep() = default;

  // Does `step`, which must be the same work at each call: for a few calls as it is, then recorded. Where recording
  // fails, as it is from then on. Gradients of `model` are dropped before the recording, so that they are written and
  // not added to. Other threads may use the GPU meanwhile, but none of them call run().
  virtual void run(torch::nn::Module& model, const std::function<void()>& step) = 0;

  virtual bool is_recorded() const = 0;
  virtual void replay() = 0;  // the recorded step, on the current stream
};

}  // namespace afm
