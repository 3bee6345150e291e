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
#include "libafm/linalg/output_metric.h"
#include "libafm/nn/model.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

// kMimic: Atomic Feature Mimicking, optimal on the layer's outputs (Theorem 1): in the metric of the logloss where the
// statistics have one (LayerStatistics::metric), else by their squared error. kWeightSvd: the baseline that looks at
// the weights alone; linear layers get the best bias for them, tables E ~ Z B have no offset and all rows count the
// same.
enum class FactorMethod { kMimic, kWeightSvd };
constexpr std::array<std::string_view, 2> enum_names(std::type_identity<FactorMethod>) { return {"mimic", "svd"}; }

// Rewrites in place the layers that `plan` names; the typed members stay valid, an optimizer made before does not know
// the new tensors. All or nothing: every check and all arithmetic come before the first change. Throws
// std::invalid_argument for a layer that does not exist, has no statistics or others than its shape, is factorized
// already or holds a value that is not finite, for ranks that do not fit it, for Basis::kNone (see fold()) and for
// fewer units.
//
// FactorActivation::kShiftedRelu shifts the biases so far that no latent value of a calibration row is negative.
// kMimic gives an id without a count the mean of its field where the statistics say that they saw the whole training
// set. The ids of a shared tier get their mean, weighted by counts; coordinates that a tier lacks are those of the
// field's mean. metric_eps, of kMimic: see output_metric(); 1 gives the factors of squared error.
void factorize_(torch::nn::Module& module, const Statistics& statistics, const RankPlan& plan,
                FactorMethod method = FactorMethod::kMimic, double metric_eps = kMetricEps);

// The same on a copy. LayerPlan::units: hidden layers first keep the units that choose_units() finds (the statistics
// then need input moments), in a model rebuilt with other options.hidden; ranks are those of the layers that are left.
std::shared_ptr<Model> factorize(const Model& model, const Statistics& statistics, const RankPlan& plan,
                                 FactorMethod method = FactorMethod::kMimic, double metric_eps = kMetricEps);

}  // namespace afm
