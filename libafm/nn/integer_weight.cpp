#include "libafm/nn/integer_weight.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/types.h>

#include "libafm/nn/cpu_kernels.h"

namespace afm::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct StraightThrough : torch::autograd::Function<StraightThrough> {
  static at::Tensor forward(AutogradContext*, const at::Tensor& x, c10::function_ref<at::Tensor(const at::Tensor&)> f) {
    return f(x);
  }
  static variable_list backward(AutogradContext*, const variable_list& incoming) { return {incoming[0], at::Tensor()}; }
};

}  // namespace

at::Tensor IntegerWeight::values(const at::Tensor& parameter, bool keep) {
  if (at::GradMode::is_enabled() && parameter.requires_grad()) {
    forget();
    return StraightThrough::apply(parameter, [this](const at::Tensor& x) { return rounded(x); });
  }
  const at::Tensor x = parameter.detach();
  if (!keep || !x.is_cpu() || x.is_inference()) {
    forget();
    return rounded(x);
  }
  const std::lock_guard lock(mutex_);
  const auto version = static_cast<uint32_t>(parameter._version());
  if (!kept_.defined() || kept_of_.const_data_ptr() != x.const_data_ptr() || kept_version_ != version) {
    kept_ = rounded(x);
    kept_of_ = x;
    kept_version_ = version;
  }
  return kept_;
}

void IntegerWeight::forget() {
  const std::lock_guard lock(mutex_);
  kept_ = kept_of_ = at::Tensor();
}

at::Tensor IntegerWeight::rounded(const at::Tensor& x) {
  if (x.numel() == 0) return x.clone();
  if (is_cpu_float(x) && x.is_contiguous()) {
    at::Tensor y = at::empty_like(x);
    round_with_kernels(x.const_data_ptr<float>(), bits, groups, y.mutable_data_ptr<float>());
    return y;
  }
  const Rounded result = round_with_aten(x, bits, groups, index_on(x.device()));
  return result.codes.mul(result.spread).view(x.sizes());
}

GroupIndex IntegerWeight::index_on(at::Device device) {
  if (are_of_a_matrix(groups)) return {};
  const std::lock_guard lock(index_mutex_);
  if (!index_.piece.defined() || index_.piece.device() != device) index_ = group_index(groups, device);
  return index_;
}

}  // namespace afm::nn
