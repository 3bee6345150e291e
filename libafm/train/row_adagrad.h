#pragma once

// Private: row-wise Adagrad on a table (Duchi et al. 2011, with one sum of squares per row as in DLRM): memory of one
// number per row where Adam keeps two per element.
//   sum_r += mean_c g_rc^2;    parameter_rc -= learning rate * g_rc / (sqrt(sum_r) + 1e-8)
// The wide weight, whose gradients are far larger, is a row of its own. Only rows with a gradient change; L2 falls on
// these alone.

#include <string>

#include "libafm/train/table_optimizer.h"

namespace afm {

class RowAdagrad final : public TableOptimizer {
 public:
  // `scale`: of the learning rate that step() is given. `embedding` must outlive the optimizer.
  RowAdagrad(nn::EmbeddingImpl& embedding, std::string name, double l2, double scale);

  TensorMap state() const override;  // "<name>.sum" [stored rows, 1], with wide weights of their own [stored rows, 2]
  void load_state(const TensorMap& state, std::string_view where) override;

 private:
  void step_rows(const nn::TouchedRows& rows, double learning_rate) override;
  void step_whole(const at::Tensor& gradient, double learning_rate) override;

  double l2_, scale_;
  at::Tensor sum_;
};

}  // namespace afm
