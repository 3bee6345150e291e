#include "libafm/train/optimizer_state.h"

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"

namespace afm {

void copy_state(const at::Tensor& target, const TensorMap& state, const std::string& name, std::string_view where) {
  const auto found = state.find(name);
  if (found == state.end()) fail<FormatError>("{} lacks the optimizer's tensor '{}'", where, name);
  if (found->second.sizes() != target.sizes()) {
    fail<FormatError>("{} has the optimizer's tensor '{}' of shape {}, expected {}", where, name,
                      c10::str(found->second.sizes()), c10::str(target.sizes()));
  }
  target.copy_(found->second);
}

void refuse_surplus(const TensorMap& state, const TensorMap& own, std::string_view where) {
  for (const auto& [name, tensor] : state) {
    if (!own.contains(name)) fail<FormatError>("{} has an optimizer's tensor '{}' of no parameter", where, name);
  }
}

}  // namespace afm
