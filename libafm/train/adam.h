#pragma once

// Adam with dense semantics through ATen's fused step (one call for all tensors of a group, on the CPU and on a GPU).

#include <cstdint>
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

class Adam {
 public:
  explicit Adam(std::vector<ParameterGroup> groups);

  void step(double learning_rate);  // uses each parameter's grad; a parameter without one is left alone
  void zero_grad();                 // zeroes gradients in place: their memory is kept

  TensorMap state() const;  // "<name>.mean", "<name>.square", "<name>.step"
  void load_state(const TensorMap& state, std::string_view where);

 private:
  struct Group {
    ParameterGroup group;
    std::vector<at::Tensor> means, squares, steps;
  };
  std::vector<Group> groups_;
};

}  // namespace afm
