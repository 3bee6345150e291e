#include "libafm/train/adam.h"

#include <utility>

#include <ATen/ATen.h>

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
    const auto step_with = [&](const auto& rate) {
      at::_fused_adam_(parameters, gradients, first, second, /*max_exp_avg_sqs=*/{}, counts, rate, kAdamBeta1,
                       kAdamBeta2, group.l2, kAdamEpsilon, /*amsgrad=*/false, /*maximize=*/false);
    };
    rate_.defined() ? step_with(rate_) : step_with(learning_rate);
  }
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
