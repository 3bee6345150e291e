#pragma once

// Private: typed access to the modules of a ModuleList. A clone of the module that owns the list gets a new list, so
// its typed members are read from it again.

#include <memory>
#include <string>
#include <vector>

#include <torch/nn/module.h>

namespace afm::nn {

// The modules registered below child `name` of `owner`, as holders; none when there is no such child.
template <typename Holder>
std::vector<Holder> typed_children(const torch::nn::Module& owner, const std::string& name) {
  std::vector<Holder> typed;
  const auto children = owner.named_children();
  if (!children.contains(name)) return typed;
  for (const auto& module : children[name]->children()) {
    typed.emplace_back(std::dynamic_pointer_cast<typename Holder::ContainedType>(module));
  }
  return typed;
}

}  // namespace afm::nn
