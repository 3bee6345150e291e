#include "libafm/train/precision_scope.h"

#include <ATen/Context.h>

namespace afm {

PrecisionScope::PrecisionScope(Model& model, Precision precision)
    : tf32_before_(at::globalContext().allowTF32CuBLAS()) {
  if (model.device().is_cpu()) return;
  if (precision == Precision::kTf32) at::globalContext().setAllowTF32CuBLAS(true);
  if (precision != Precision::kBf16) return;
  for (const auto& module : model.modules(/*include_self=*/false)) {
    auto* embedding = dynamic_cast<nn::EmbeddingImpl*>(module.get());
    if (embedding == nullptr || embedding->feature_type != at::kFloat) continue;
    embedding->feature_type = at::kBFloat16;
    rounded_.push_back(embedding);
  }
}

PrecisionScope::~PrecisionScope() {
  for (auto* embedding : rounded_) embedding->feature_type = at::kFloat;
  if (at::globalContext().allowTF32CuBLAS() != tf32_before_) at::globalContext().setAllowTF32CuBLAS(tf32_before_);
}

}  // namespace afm
