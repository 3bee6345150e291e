#pragma once

// Rewrites layers as factor pairs.

#include <array>
#include <memory>
#include <string_view>
#include <type_traits>

#include <torch/nn/module.h>

#include "libafm/compress/statistics.h"
#include "libafm/nn/model.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

// kMimic: Atomic Feature Mimicking, optimal on the layer's outputs (Theorem 1). kWeightSvd: the baseline that looks at the
// weights alone (tables: all rows equal), with the best bias for them.
enum class FactorMethod { kMimic, kWeightSvd };
constexpr std::array<std::string_view, 2> enum_names(std::type_identity<FactorMethod>) { return {"mimic", "svd"}; }

// Rewrites in place the layers that `plan` names; the typed members stay valid, an optimizer made before does not know
// the new tensors. Every check comes before the first change. Throws std::invalid_argument for a layer without
// statistics, a rank that does not fit, a layer that is factorized already.
void factorize_(torch::nn::Module& module, const Statistics& statistics, const RankPlan& plan,
                FactorMethod method = FactorMethod::kMimic);

// The same on a copy.
std::shared_ptr<Model> factorize(const Model& model, const Statistics& statistics, const RankPlan& plan,
                                 FactorMethod method = FactorMethod::kMimic);

}  // namespace afm
