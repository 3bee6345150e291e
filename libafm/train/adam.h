#pragma once

// Adam with dense semantics through ATen's fused step (one call for all tensors of a group, on the CPU and on a GPU).

#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/core/tensors.h"
#include "libafm/train/optimizer.h"

namespace afm {

class Adam final : public Optimizer {
 public:
  explicit Adam(std::vector<ParameterGroup> groups);

  void step(double learning_rate) override;  // a parameter without a gradient is left alone
  bool read_rate_from(const at::Tensor& rate) override;
  void zero_grad() override;  // in place: their memory is kept
  std::string parameter_without_finite_gradient() const override;

  TensorMap state() const override;  // "<name>.mean", "<name>.square", "<name>.step"
  void load_state(const TensorMap& state, std::string_view where) override;

 private:
  struct Group {
    ParameterGroup group;
    std::vector<at::Tensor> means, squares, steps;
  };
  void step_group(const Group& group, double learning_rate);  // its steps are counted

  std::vector<Group> groups_;
  at::Tensor rate_;  // undefined: the argument of step()
};

}  // namespace afm
