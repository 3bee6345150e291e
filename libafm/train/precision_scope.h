#pragma once

// Private: what the MLP of a model reads in training, within a scope.

#include <vector>

#include "libafm/nn/embedding.h"
#include "libafm/train/trainer.h"

namespace afm {

// kBf16 makes it bfloat16 on a GPU. TF32 is a switch of the process: train/lane.h.
class FeatureTypeScope {
 public:
  FeatureTypeScope(Model& model, Precision precision);
  ~FeatureTypeScope();
  FeatureTypeScope(const FeatureTypeScope&) = delete;
  FeatureTypeScope& operator=(const FeatureTypeScope&) = delete;

 private:
  std::vector<nn::EmbeddingImpl*> rounded_;
};

}  // namespace afm
