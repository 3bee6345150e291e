#include "libafm/train/adam.h"

#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "libafm/train/finite_check.h"
#include "libafm/train/fused.h"
#include "libafm/train/optimizer_state.h"
#include "libafm/train/step_history.h"

namespace afm {
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
  std::vector<AdamSlot> slots;
  std::vector<at::Tensor> counts;
  for (const auto& [group, means, squares, steps] : groups_) {
    for (std::size_t i = 0; i < group.parameters.size(); ++i) {
      const at::Tensor& parameter = group.parameters[i];
      if (!parameter.grad().defined()) continue;
      slots.push_back({parameter, parameter.grad(), means[i], squares[i], steps[i], group.l2});
      counts.push_back(steps[i]);
    }
  }
  if (slots.empty()) return;
  at::_foreach_add_(counts, 1);
  if (fused_adam(slots, rate_, learning_rate)) return;
  for (const Group& group : groups_) step_group(group, learning_rate);
}

void Adam::step_group(const Group& group, double learning_rate) {
  std::vector<at::Tensor> parameters, gradients, means, squares, steps;
  for (std::size_t i = 0; i < group.group.parameters.size(); ++i) {
    const at::Tensor& parameter = group.group.parameters[i];
    if (!parameter.grad().defined()) continue;
    parameters.push_back(parameter);
    gradients.push_back(parameter.grad());
    means.push_back(group.means[i]);
    squares.push_back(group.squares[i]);
    steps.push_back(group.steps[i]);
  }
  if (parameters.empty()) return;
  const auto step_with = [&](const auto& rate) {
    at::_fused_adam_(parameters, gradients, means, squares, /*max_exp_avg_sqs=*/{}, steps, rate, kAdamBeta1, kAdamBeta2,
                     group.group.l2, kAdamEpsilon, /*amsgrad=*/false, /*maximize=*/false);
  };
  rate_.defined() ? step_with(rate_) : step_with(learning_rate);
}

bool Adam::read_rate_from(const at::Tensor& rate) {
  rate_ = rate;
  return true;
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

std::string Adam::parameter_without_finite_gradient() const {
  for (const auto& [group, means, squares, steps] : groups_) {
    for (std::size_t i = 0; i < group.parameters.size(); ++i) {
      const at::Tensor& gradient = group.parameters[i].grad();
      if (gradient.defined() && !has_finite_norm(gradient)) return group.names[i];
    }
  }
  return {};
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
  for (const auto& [name, tensor] : own) copy_state(tensor, state, name, where);
  refuse_surplus(state, own, where);
}

}  // namespace afm
