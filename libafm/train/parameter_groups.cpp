#include "libafm/train/parameter_groups.h"

#include <string>
#include <string_view>
#include <unordered_set>

#include "libafm/nn/embedding.h"

namespace afm {
namespace {

using Identities = std::unordered_set<const at::TensorImpl*>;

struct EmbeddingParameters {
  Identities tables, others;
};

EmbeddingParameters embedding_parameters(const torch::nn::Module& model) {
  EmbeddingParameters found;
  for (const auto& module : model.modules(/*include_self=*/false)) {
    const auto* embedding = dynamic_cast<const nn::EmbeddingImpl*>(module.get());
    if (embedding == nullptr) continue;
    const at::Tensor& table = embedding->is_dense() ? embedding->weight : embedding->latent;
    found.tables.insert(table.unsafeGetTensorImpl());
    for (const auto& parameter : embedding->parameters()) found.others.insert(parameter.unsafeGetTensorImpl());
  }
  return found;
}

// The vector cross network keeps a bias per layer in one matrix.
bool is_weight_matrix(std::string_view name, const at::Tensor& parameter) {
  return parameter.dim() >= 2 && !name.ends_with("bias");
}

}  // namespace

std::vector<ParameterGroup> parameter_groups(const torch::nn::Module& model, double embedding_l2, double mlp_l2) {
  const EmbeddingParameters embeddings = embedding_parameters(model);
  ParameterGroup tables, matrices, rest;
  tables.l2 = embedding_l2;
  matrices.l2 = mlp_l2;
  Identities seen;
  for (const auto& item : model.named_parameters()) {
    const auto* identity = item.value().unsafeGetTensorImpl();
    if (!item.value().requires_grad() || !seen.insert(identity).second) continue;
    const bool matrix = !embeddings.others.contains(identity) && is_weight_matrix(item.key(), item.value());
    auto& group = embeddings.tables.contains(identity) ? tables : (matrix ? matrices : rest);
    group.names.push_back(item.key());
    group.parameters.push_back(item.value());
  }
  return {std::move(tables), std::move(matrices), std::move(rest)};
}

}  // namespace afm
