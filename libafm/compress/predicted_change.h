#pragma once

// What another form of a model's layers does to the logloss, to second order, row by row.
//
// A layer gives y for its input x, its other form (integers, a pair of factors) y + dy for the same x; a = dlogit / dy.
// To first order the logit moves by the sum of a' dy over all layers and, p being the probability of a click,
//   E KL(p || p') ~ 1/2 E[p (1 - p) (sum a' dy)^2]     (the Gauss-Newton matrix, Schraudolph 2002).
// True where errors are small, as those of integers are. Pairs of few ranks change a ReLU's slopes too: there it says
// up to three times too much, and the spectra of predicted_logloss(), which take a and dy for independent, are nearer.
// The logloss of labels t rises by this divergence and by E[(p - t)(s' - s)], s the logits, which is 0 where the model
// is at a minimum of the logloss on these rows.
//
// Of a linear layer whose weights W become integers, dy = dW x with the very error dW of their rounding; of a table,
// the error of the row that was looked up.
//
//   const auto exact = with_bits(*small, {});                   // as if it had no integers
//   const auto change = predicted_change(*exact, *small, train_set);

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include <torch/nn/module.h>

#include "libafm/compress/statistics.h"
#include "libafm/data/dataset.h"
#include "libafm/nn/model.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

struct PredictedChange {
  std::map<std::string, double> layers;  // of each layer, as if the others had not changed
  double together = 0.0;                 // of all: also what their errors have in common
  double measured = 0.0;                 // KL(before || after), nats per row
  int64_t rows = 0;                      // those whose logits are finite; the others are left out

  double sum() const;  // of the layers, one by one: what it is where their errors do not meet
};

// The two calls give the logits of the same rows, in evaluation mode; those of `before` have a graph. Hooks are removed
// at the end, also after an exception; a hook that a layer of `before` had is gone too. Throws std::invalid_argument
// for a layer that is not in both, or does not read and give the same shapes: a folded model is compared with a folded
// one, fewer units with as few.
PredictedChange predicted_change(torch::nn::Module& before, const NextLogits& logits_before, torch::nn::Module& after,
                                 const NextLogits& logits_after);
// On rows of a dataset, as logits_of() takes them.
PredictedChange predicted_change(Model& before, Model& after, const Dataset& dataset, int64_t max_rows = 20'000);

// A copy whose layers store their numbers as `plan` says (LayerPlan::bits and scale, nothing else of it), those that it
// does not name as floats: the floats that training changes, rounded once.
std::shared_ptr<Model> with_bits(const Model& model, const RankPlan& plan);

}  // namespace afm
