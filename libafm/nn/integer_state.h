#pragma once

// Private: the tensors of a module tree as a model file holds them.

#include <memory>
#include <string_view>
#include <unordered_map>

#include <torch/nn/module.h>

#include "libafm/core/tensors.h"
#include "libafm/nn/integer_weight.h"

namespace afm {

// The parameters of a module tree that are integers.
using IntegerParameters = std::unordered_map<const at::TensorImpl*, std::shared_ptr<nn::IntegerWeight>>;
IntegerParameters integer_parameters_of(const torch::nn::Module& module);

// state_of(module) with codes and scale in place of each integer parameter; see model_file.h.
TensorMap stored_state_of(const torch::nn::Module& module);

// The other way: `tensors` with the values of the integer parameters of `module` in place of their codes and scales, in
// the precision that other parameters have in `tensors`. What is missing is left missing. Throws FormatError that names
// `where` and the parameter for codes and scales that do not fit it.
TensorMap with_values(const torch::nn::Module& module, TensorMap tensors, std::string_view where);

}  // namespace afm
