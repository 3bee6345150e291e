#include "libafm/nn/matching_state.h"

#include <ATen/ATen.h>
#include <torch/types.h>

#include "libafm/nn/model_file.h"

namespace afm {
namespace {

void take(at::Tensor& tensor, const TensorMap& state, const std::string& name, const at::TensorOptions& otherwise) {
  const auto source = state.find(name);
  const bool fits = source != state.end() && source->second.sizes() == tensor.sizes();
  if (fits) {
    tensor.set_data(tensor.to(source->second.options()));
    tensor.copy_(source->second);
  } else if (tensor.is_floating_point()) {
    tensor.set_data(tensor.to(otherwise));
  } else {
    tensor.set_data(tensor.to(otherwise.device()));
  }
}

}  // namespace

void copy_matching(Model& to, const Model& from) {
  const torch::NoGradGuard no_grad;
  const TensorMap state = state_of(from);
  const auto otherwise = at::TensorOptions().device(from.device()).dtype(from.dtype());
  for (auto& [name, tensor] : state_of(to)) take(tensor, state, name, otherwise);
  to.notes = from.notes;
  // Parents come before their children, so a child that differs from its parent is set last.
  to.train(from.is_training());
  const auto modes = from.named_modules("", /*include_self=*/false);
  for (const auto& item : to.named_modules("", /*include_self=*/false)) {
    if (const auto* original = modes.find(item.key())) item.value()->train((*original)->is_training());
  }
}

}  // namespace afm
