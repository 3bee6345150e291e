#include "libafm/nn/model.h"

#include <algorithm>
#include <unordered_set>

#include <fmt/format.h>
#include <torch/types.h>

#include "libafm/nn/embedding.h"
#include "libafm/nn/integer_state.h"
#include "libafm/nn/layer.h"
#include "libafm/nn/model_file.h"

namespace afm {
namespace {

// What a tensor of a module tree takes in a model file.
class StoredSizes {
 public:
  explicit StoredSizes(const torch::nn::Module& module) : integers_(integer_parameters_of(module)) {}

  int64_t bytes_of(const at::Tensor& tensor) const {
    const auto found = integers_.find(tensor.unsafeGetTensorImpl());
    if (found != integers_.end()) return nn::stored_bytes(found->second->bits, found->second->groups);
    return tensor.numel() * static_cast<int64_t>(tensor.element_size());
  }

 private:
  IntegerParameters integers_;
};

// visit(path, tensor, is_parameter) once per tensor, also where a module or a tensor is shared.
template <typename Visit>
void for_each_tensor(const torch::nn::Module& module, Visit visit) {
  std::unordered_set<const at::TensorImpl*> seen;
  const auto offer = [&](const auto& items, bool is_parameter) {
    for (const auto& item : items) {
      if (item.value().defined() && seen.insert(item.value().unsafeGetTensorImpl()).second) {
        visit(item.key(), item.value(), is_parameter);
      }
    }
  };
  offer(module.named_parameters(), true);
  offer(module.named_buffers(), false);
}

class Groups {
 public:
  void add(std::string_view group, int64_t parameters, int64_t bytes) {
    auto found = std::ranges::find(sizes_, group, &GroupSize::group);
    if (found == sizes_.end()) found = sizes_.insert(found, {std::string(group)});
    found->parameters += parameters;
    found->bytes += bytes;
  }
  std::vector<GroupSize> take() { return std::move(sizes_); }

 private:
  std::vector<GroupSize> sizes_;
};

std::string_view group_of(std::string_view path) { return path.substr(0, path.find('.')); }

int64_t wide_bytes(const nn::EmbeddingImpl& embedding) {
  const int64_t parameters = embedding.wide_parameters();
  const Bits bits = embedding.options.bits;
  if (bits != Bits::kFloat) return nn::stored_bytes(bits, {.elements = parameters, .count = embedding.field_count()});
  const at::Tensor& table = embedding.is_dense() ? embedding.weight : embedding.latent;
  return parameters * static_cast<int64_t>(table.element_size());
}

// The wide weights of an embedding sit in its table, or beside its latent rows.
void move_wide(Groups& groups, std::string_view path, const nn::EmbeddingImpl& embedding) {
  const int64_t parameters = embedding.wide_parameters();
  if (parameters == 0) return;
  const int64_t bytes = wide_bytes(embedding);
  // An embedding that is itself the root has no name in the paths of its tensors.
  groups.add(path.empty() ? (embedding.is_dense() ? "weight" : "latent") : group_of(path), -parameters, -bytes);
  groups.add("wide", parameters, bytes);
}

}  // namespace

at::Device Model::device() const {
  const auto tensors = parameters();
  return tensors.empty() ? at::Device(at::kCPU) : tensors.front().device();
}

at::ScalarType Model::dtype() const {
  const auto tensors = parameters();
  return tensors.empty() ? at::kFloat : tensors.front().scalar_type();
}

FoldResult Model::folded() const {
  const std::string reason = fmt::format("a model of the kind '{}' has no folded form", kind());
  return {.model = copy_of(*this), .refused = {{.part = "model", .reason = reason}}};
}

std::shared_ptr<Model> copy_of(const Model& model) {
  const nn::BlankScope blank(model.device(), model.dtype());
  auto copy = model.build_like(nn::rank_plan_of(model));
  const TensorMap state = state_of(model);
  for (auto& [name, tensor] : state_of(*copy)) {
    const auto source = state.find(name);
    if (source != state.end()) tensor.set_data(tensor.to(source->second.options()));
  }
  load_state(*copy, state, "the model to copy");
  copy->notes = model.notes;
  // Parents come before their children, so a child that differs from its parent is set last.
  copy->train(model.is_training());
  const auto modes = model.named_modules("", /*include_self=*/false);
  for (const auto& item : copy->named_modules("", /*include_self=*/false)) {
    if (const auto* original = modes.find(item.key())) item.value()->train((*original)->is_training());
  }
  return copy;
}

std::vector<GroupSize> size_by_group(const torch::nn::Module& module) {
  Groups groups;
  const StoredSizes sizes(module);
  for_each_tensor(module, [&](const std::string& path, const at::Tensor& tensor, bool is_parameter) {
    groups.add(group_of(path), is_parameter ? tensor.numel() : 0, sizes.bytes_of(tensor));
  });
  for (const auto& [path, layer] : nn::layers_of(const_cast<torch::nn::Module&>(module))) {
    if (const auto* embedding = dynamic_cast<const nn::EmbeddingImpl*>(layer)) move_wide(groups, path, *embedding);
  }
  return groups.take();
}

int64_t parameter_count(const torch::nn::Module& module) {
  int64_t count = 0;
  for_each_tensor(module, [&](const std::string&, const at::Tensor& tensor, bool is_parameter) {
    if (is_parameter) count += tensor.numel();
  });
  return count;
}

int64_t byte_count(const torch::nn::Module& module) {
  int64_t count = 0;
  const StoredSizes sizes(module);
  for_each_tensor(module, [&](const std::string&, const at::Tensor& tensor, bool) { count += sizes.bytes_of(tensor); });
  return count;
}

}  // namespace afm
