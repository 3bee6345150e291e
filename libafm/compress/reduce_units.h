#pragma once

// Private: a model with fewer hidden units.

#include <memory>
#include <string>
#include <vector>

#include "libafm/compress/hidden_units.h"
#include "libafm/nn/model.h"

namespace afm {

// What takes the place of `layer.next` when `kept` units are left, all its columns (those of other inputs unchanged).
NextLayer layer_behind(torch::nn::Module& root, const Statistics& statistics, const HiddenLayer& layer,
                       const std::vector<int64_t>& kept);

// A new model: rebuilt with the widths that are left in its options.hidden, with the weights of the kept units. Throws
// std::invalid_argument for a layer that is not below the model's "mlp".
std::shared_ptr<Model> reduced_model(const Model& model, const Statistics& statistics, const KeptUnits& kept);

}  // namespace afm
