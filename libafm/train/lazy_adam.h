#pragma once

// Private: Adam with dense semantics on a table, at the cost of the rows that are read: what a row has missed (steps
// with a gradient of zero, L2) is made up for when a batch reads it next, see Note [Missed steps]. Equal to Adam within
// rounding. With L2 every missed step of a row is taken, in registers: then it saves memory traffic alone.

#include <cstdint>
#include <string>

#include "libafm/train/adam_rows.h"
#include "libafm/train/step_history.h"
#include "libafm/train/table_optimizer.h"

namespace afm {

class LazyAdam final : public TableOptimizer {
 public:
  static bool serves(const nn::EmbeddingImpl& embedding) { return gives_rows(embedding); }
  // `embedding` must be served and outlive the optimizer.
  LazyAdam(nn::EmbeddingImpl& embedding, std::string name, double l2);

  void flush() override;
  TensorMap state() const override;  // lazy_adam_state.h
  void load_state(const TensorMap& state, std::string_view where) override;

 private:
  bool is_behind() const override { return history_.steps() > history_.first(); }
  void catch_up(const nn::TouchedRows& rows) override;
  void step_rows(const nn::TouchedRows& rows, double learning_rate) override;
  void step_whole(const at::Tensor& gradient, double learning_rate) override;
  void step_without_gradient(double learning_rate) override;

  AdamTable table() const;
  void settle();  // every row has done every step

  double l2_;
  at::Tensor mean_, square_;
  at::Tensor behind_;  // int32 [stored rows]
  StepHistory history_;
};

}  // namespace afm
