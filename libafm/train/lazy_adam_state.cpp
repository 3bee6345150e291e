#include "libafm/train/lazy_adam_state.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/train/optimizer_state.h"

namespace afm {
namespace {

constexpr int64_t kMostSteps = int64_t{1} << 31;

int64_t steps_in(const TensorMap& from, const std::string& name, std::string_view where) {
  const at::Tensor step = at::zeros({}, at::kFloat);
  copy_state(step, from, name + ".step", where);
  if (!step.ge(0).logical_and(step.lt(kMostSteps)).item<bool>()) {
    fail<FormatError>("{} has a '{}.step' that is no number of steps", where, name);
  }
  return static_cast<int64_t>(step.item<float>());
}

// A row number outside the history would be read out of bounds.
void check_rows(const LazyAdamState& state, const std::string& name, std::string_view where, bool fresh_rows) {
  const int64_t first = state.steps - static_cast<int64_t>(state.rates.size());
  const at::Tensor kept = state.behind.ge(first).logical_and_(state.behind.le(state.steps));
  const at::Tensor fresh = fresh_rows ? state.behind.eq(0) : at::zeros_like(kept);
  if (!kept.logical_or(fresh).all().item<bool>()) fail<FormatError>("{} has '{}.rows' of other steps", where, name);
}

}  // namespace

TensorMap lazy_adam_state(const std::string& name, const LazyAdamState& state) {
  return {{name + ".mean", state.mean},
          {name + ".square", state.square},
          {name + ".step", at::scalar_tensor(state.steps, at::kFloat)},
          {name + ".rows", state.behind},
          {name + ".rates", at::tensor(state.rates, at::kDouble)}};
}

void load_lazy_adam_state(const TensorMap& from, const std::string& name, std::string_view where, bool fresh_rows,
                          LazyAdamState& state) {
  const at::NoGradGuard no_grad;
  refuse_surplus(from, lazy_adam_state(name, state), where);
  copy_state(state.mean, from, name + ".mean", where);
  copy_state(state.square, from, name + ".square", where);
  state.steps = steps_in(from, name, where);
  state.rates.clear();
  const auto saved = from.find(name + ".rates");
  if (saved == from.end()) {
    state.behind.fill_(state.steps);
    return;
  }
  const at::Tensor rates = saved->second.to(at::kCPU, at::kDouble).contiguous().view({-1});
  if (rates.numel() > state.steps) fail<FormatError>("{} has more of '{}.rates' than steps", where, name);
  const double* begin = rates.const_data_ptr<double>();
  state.rates.assign(begin, begin + rates.numel());
  copy_state(state.behind, from, name + ".rows", where);
  check_rows(state, name, where, fresh_rows);
}

}  // namespace afm
