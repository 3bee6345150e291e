#pragma once

// Private: TrainOptions::precision, within a scope.

#include <vector>

#include "libafm/nn/embedding.h"
#include "libafm/train/trainer.h"

namespace afm {

// Does nothing on the CPU.
class PrecisionScope {
 public:
  PrecisionScope(Model& model, Precision precision);
  ~PrecisionScope();
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;

 private:
  std::vector<nn::EmbeddingImpl*> rounded_;
  bool tf32_before_;
};

}  // namespace afm
