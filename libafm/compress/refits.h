#pragma once

// After factorize(): the parts of a compressed model are fitted, one after the other, to what the original's parts give
// on the same rows, each on the inputs that it really gets (behind compressed ones). For use without fine-tuning.
//
//   auto small = factorize(*model, statistics, plan);
//   refit_(*small, *model, train_set, statistics);

#include <cstdint>
#include <string>
#include <vector>

#include "libafm/compress/statistics.h"
#include "libafm/data/dataset.h"
#include "libafm/nn/model.h"

namespace afm {

struct RefitOptions {
  bool biases = true;          // every linear layer with a bias gets back the mean of its outputs
  bool first_layer = true;     // layers that read the features: ridge regression on what is left of them
  bool later_layers = true;    // the others too; a pair of factors by reduced-rank regression at its rank, one with an
                               // activation between them by the second factor alone
  bool batch_norm = true;      // running mean and variance are those of the compressed inputs
  bool calibration = true;     // the last layer's part of the logit is scaled and shifted: s = rest + a part + b
  double ridge = 1e-2;         // at least 0: pull towards the weights there are, in units of the mean input variance
  int64_t max_rows = 200'000;  // of the dataset, drawn at random; 0: all
  bool operator==(const RefitOptions&) const = default;
};

// One change that was tried. KL in nats per row, KL(original || compressed) over the rows.
struct RefitStep {
  std::string part;  // path of a layer or batch norm, or "calibration"
  double kl_before = 0.0, kl_after = 0.0;
  bool kept = false;  // undone unless kl_after <= kl_before
};

// Changes `compressed` in place, parameters by value (optimizers keep them). Layers are matched by path. Those that
// keep fewer units (LayerPlan::units) are fitted to the outputs of these where `statistics` have the input moments that
// factorize() chose them from, and left alone elsewhere. Errors are measured in the metric of
// `statistics` (of the original) where it has one. Each layer's squared error on these rows is no larger than before,
// and each step that makes the mean KL larger is undone. Throws std::invalid_argument for a bad option and DataError
// when the dataset's schema does not fit.
std::vector<RefitStep> refit_(Model& compressed, Model& original, const Dataset& dataset,
                              const Statistics& statistics = {}, const RefitOptions& options = {});

}  // namespace afm
