#include "libafm/train/adam.h"

#include <utility>

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"

namespace afm {
namespace {

constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-8;

void copy_checked(const at::Tensor& target, const TensorMap& state, const std::string& name, std::string_view where) {
  const auto found = state.find(name);
  if (found == state.end()) fail<FormatError>("{} lacks the optimizer's tensor '{}'", where, name);
  if (found->second.sizes() != target.sizes()) {
    fail<FormatError>("{} has the optimizer's tensor '{}' of shape {}, expected {}", where, name,
                      c10::str(found->second.sizes()), c10::str(target.sizes()));
  }
  target.copy_(found->second);
}

}  // namespace

Adam::Adam(std::vector<ParameterGroup> groups) {
  for (auto& given : groups) {
    Group group{std::move(given), {}, {}, {}};
    for (const auto& parameter : group.group.parameters) {
      group.means.push_back(at::zeros_like(parameter));
      group.squares.push_back(at::zeros_like(parameter));
      group.steps.push_back(at::zeros({}, at::TensorOptions(parameter.device()).dtype(at::kFloat)));
    }
    groups_.push_back(std::move(group));
  }
}

void Adam::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  for (auto& [group, means, squares, steps] : groups_) {
    std::vector<at::Tensor> parameters, gradients, first, second, counts;
    for (std::size_t i = 0; i < group.parameters.size(); ++i) {
      if (!group.parameters[i].grad().defined()) continue;
      parameters.push_back(group.parameters[i]);
      gradients.push_back(group.parameters[i].grad());
      first.push_back(means[i]);
      second.push_back(squares[i]);
      counts.push_back(steps[i]);
    }
    if (parameters.empty()) continue;
    at::_foreach_add_(counts, 1);
    at::_fused_adam_(parameters, gradients, first, second, /*max_exp_avg_sqs=*/{}, counts, learning_rate, kBeta1,
                     kBeta2, group.l2, kEpsilon, /*amsgrad=*/false, /*maximize=*/false);
  }
}

void Adam::zero_grad() {
  std::vector<at::Tensor> gradients;
  for (const auto& group : groups_) {
    for (const auto& parameter : group.group.parameters) {
      if (parameter.grad().defined()) gradients.push_back(parameter.grad());
    }
  }
  if (!gradients.empty()) at::_foreach_zero_(gradients);
}

TensorMap Adam::state() const {
  TensorMap state;
  for (const auto& [group, means, squares, steps] : groups_) {
    for (std::size_t i = 0; i < group.names.size(); ++i) {
      state[group.names[i] + ".mean"] = means[i];
      state[group.names[i] + ".square"] = squares[i];
      state[group.names[i] + ".step"] = steps[i];
    }
  }
  return state;
}

void Adam::load_state(const TensorMap& state, std::string_view where) {
  const at::NoGradGuard no_grad;
  const TensorMap own = this->state();
  for (const auto& [name, tensor] : own) copy_checked(tensor, state, name, where);
  for (const auto& [name, tensor] : state) {
    if (!own.contains(name)) fail<FormatError>("{} has an optimizer's tensor '{}' of no parameter", where, name);
  }
}

}  // namespace afm
