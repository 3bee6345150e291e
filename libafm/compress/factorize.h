#pragma once

// Rewrites layers as factor pairs.
//
//   factorize_(*model, statistics, plan_ranks(statistics, {.ratio = 8.0}));

#include <array>
#include <memory>
#include <string_view>
#include <type_traits>

#include <torch/nn/module.h>

#include "libafm/compress/statistics.h"
#include "libafm/nn/model.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

// kMimic: Atomic Feature Mimicking, optimal on the layer's outputs (Theorem 1). kWeightSvd: the baseline that looks at
// the weights alone; linear layers get the best bias for them, tables E ~ Z B have no offset and all rows count the
// same.
enum class FactorMethod { kMimic, kWeightSvd };
constexpr std::array<std::string_view, 2> enum_names(std::type_identity<FactorMethod>) { return {"mimic", "svd"}; }

// Rewrites in place the layers that `plan` names; the typed members stay valid, an optimizer made before does not know
// the new tensors. All or nothing: every check and all arithmetic come before the first change. Throws
// std::invalid_argument for a layer that does not exist, has no statistics or others than its shape, is factorized
// already or holds a value that is not finite, and for ranks that do not fit it.
//
// FactorActivation::kShiftedRelu shifts the biases so far that no latent value of a calibration row is negative.
// kMimic gives an id without a count the mean of its field where the statistics say that they saw the whole training
// set.
void factorize_(torch::nn::Module& module, const Statistics& statistics, const RankPlan& plan,
                FactorMethod method = FactorMethod::kMimic);

// The same on a copy.
std::shared_ptr<Model> factorize(const Model& model, const Statistics& statistics, const RankPlan& plan,
                                 FactorMethod method = FactorMethod::kMimic);

}  // namespace afm
