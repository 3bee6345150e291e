#include "libafm/train/precision_scope.h"

namespace afm {

FeatureTypeScope::FeatureTypeScope(Model& model, Precision precision) {
  if (model.device().is_cpu() || precision != Precision::kBf16) return;
  for (const auto& module : model.modules(/*include_self=*/false)) {
    auto* embedding = dynamic_cast<nn::EmbeddingImpl*>(module.get());
    if (embedding == nullptr || embedding->feature_type != at::kFloat) continue;
    embedding->feature_type = at::kBFloat16;
    rounded_.push_back(embedding);
  }
}

FeatureTypeScope::~FeatureTypeScope() {
  for (auto* embedding : rounded_) embedding->feature_type = at::kFloat;
}

}  // namespace afm
