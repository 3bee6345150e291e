#pragma once

// Private: the rules for an optimizer's state that comes from a file.

#include <string>
#include <string_view>

#include "libafm/core/tensors.h"

namespace afm {

// state[name], of the shape of `target`, to `target`; else FormatError.
void copy_state(const at::Tensor& target, const TensorMap& state, const std::string& name, std::string_view where);

// Throws FormatError when `state` has a tensor that `own` lacks.
void refuse_surplus(const TensorMap& state, const TensorMap& own, std::string_view where);

}  // namespace afm
