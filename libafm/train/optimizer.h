#pragma once

// What a training step asks of an optimizer, and the parameters that one is made for.

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/core/tensors.h"

namespace afm {

struct ParameterGroup {
  std::vector<std::string> names;  // for the checkpoint
  std::vector<at::Tensor> parameters;
  double l2 = 0.0;  // adds l2 * parameter to the gradient: the penalty (l2 / 2) ||parameter||^2
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  virtual void step(double learning_rate) = 0;  // uses the gradients of the last backward pass
  virtual void zero_grad() = 0;                 // before the next one

  // On the CPU, before step(): a parameter whose gradient, or the sum of its squares, is not finite. Empty: none.
  virtual std::string parameter_without_finite_gradient() const { return {}; }

  // From now on step() reads the learning rate from `rate` ([1] float32 on the device of the parameters) and not from
  // its argument, so that a recorded step can be repeated with another one. False where it cannot.
  virtual bool read_rate_from(const at::Tensor& rate) { return !rate.defined(); }

  // An optimizer may put off what a step owes to a row that no batch reads. After flush() all of it is done: before
  // anybody but a training step reads the parameters.
  virtual void flush() {}
  // It must not put off more steps than that.
  virtual int64_t steps_before_flush() const { return std::numeric_limits<int64_t>::max(); }

  // By "<parameter>.<what>", on the device of the parameter; shares memory with the optimizer. What is put off is part
  // of it: a run that goes on from parameters and state saved without flush() goes on as if it had never stopped.
  virtual TensorMap state() const = 0;
  // Throws FormatError, naming `where`, for a state of other parameters.
  virtual void load_state(const TensorMap& state, std::string_view where) = 0;
};

}  // namespace afm
