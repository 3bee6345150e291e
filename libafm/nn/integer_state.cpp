#include "libafm/nn/integer_state.h"

#include <string>
#include <utility>

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/nn/layer.h"
#include "libafm/nn/model_file.h"
#include "libafm/nn/quantize.h"

namespace afm {
namespace {

constexpr std::string_view kCodes = ".codes", kScale = ".scale";

std::string joined(const std::string& name, std::string_view suffix) { return name + std::string(suffix); }

// An undefined tensor when there is none.
at::Tensor take(TensorMap& tensors, const std::string& name) {
  const auto node = tensors.extract(name);
  return node.empty() ? at::Tensor() : node.mapped();
}

at::Tensor values_of(const nn::StoredIntegers& stored, const nn::IntegerWeight& integers, const std::string& name,
                     std::string_view where) {
  try {
    return nn::load_integers(stored, integers.bits, integers.groups);
  } catch (const FormatError& error) {
    fail<FormatError>("{} does not hold the integers of '{}': {}", where, name, error.what());
  }
}

at::ScalarType precision_of(const TensorMap& tensors) {
  for (const auto& [name, tensor] : tensors) {
    if (tensor.is_floating_point()) return tensor.scalar_type();
  }
  return at::kFloat;
}

}  // namespace

IntegerParameters integer_parameters_of(const torch::nn::Module& module) {
  IntegerParameters found;
  // Only read: layers_of() takes a module that may change because its callers change it.
  for (const auto& [path, layer] : nn::layers_of(const_cast<torch::nn::Module&>(module))) {
    for (const auto& parameter : layer->integer_parameters()) {
      found[parameter.tensor.unsafeGetTensorImpl()] = parameter.integers;
    }
  }
  return found;
}

TensorMap stored_state_of(const torch::nn::Module& module) {
  TensorMap state;
  const IntegerParameters integers = integer_parameters_of(module);
  for (const auto& [name, tensor] : state_of(module)) {
    const auto found = integers.find(tensor.unsafeGetTensorImpl());
    if (found == integers.end()) {
      state[name] = tensor;
      continue;
    }
    const nn::StoredIntegers stored = nn::store_integers(tensor, found->second->bits, found->second->groups);
    state[joined(name, kCodes)] = stored.codes;
    state[joined(name, kScale)] = stored.scale;
  }
  return state;
}

TensorMap with_values(const torch::nn::Module& module, TensorMap tensors, std::string_view where) {
  const IntegerParameters integers = integer_parameters_of(module);
  TensorMap values;
  for (const auto& [name, target] : state_of(module)) {
    const auto found = integers.find(target.unsafeGetTensorImpl());
    if (found == integers.end()) continue;
    const nn::StoredIntegers stored{take(tensors, joined(name, kCodes)), take(tensors, joined(name, kScale))};
    if (!stored.codes.defined() && !stored.scale.defined()) continue;
    values[name] = values_of(stored, *found->second, name, where).view(target.sizes());
  }
  const at::ScalarType precision = precision_of(tensors);
  for (auto& [name, tensor] : values) tensors[name] = tensor.to(precision);
  return tensors;
}

}  // namespace afm
