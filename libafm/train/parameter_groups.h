#pragma once

// Private: which parameters get which L2.

#include <vector>

#include <torch/nn/module.h>

#include "libafm/train/optimizer.h"

namespace afm {

// Three groups: tables of nn::Embedding, other weight matrices, the rest (biases, batch norm, bases of factorized
// tables; no L2). A parameter that needs no gradient is in none.
std::vector<ParameterGroup> parameter_groups(const torch::nn::Module& model, double embedding_l2, double mlp_l2);

}  // namespace afm
