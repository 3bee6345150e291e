#pragma once

// Private: an optimizer of the table of one embedding that works on the rows that a batch reads. Where the gradient of
// a whole table arrives instead (another device or dtype, a model that reads the table itself) it takes that.

#include <memory>
#include <string>
#include <vector>

#include "libafm/nn/embedding.h"
#include "libafm/nn/touched_rows.h"
#include "libafm/train/optimizer.h"

namespace afm {

class TableOptimizer : public Optimizer {
 public:
  void step(double learning_rate) final;
  void zero_grad() final;
  std::string parameter_without_finite_gradient() const final;
  ~TableOptimizer() override;

 protected:
  TableOptimizer(nn::EmbeddingImpl& embedding, std::string name);  // `name`: of the table in the model

  // Whether the lookups can name their rows: float32 on the CPU, computed with as it is stored.
  static bool gives_rows(const nn::EmbeddingImpl& embedding);
  void attach();  // from now on they do

  virtual bool is_behind() const { return false; }
  virtual void catch_up(const nn::TouchedRows&) {}
  virtual void step_rows(const nn::TouchedRows& rows, double learning_rate) = 0;
  virtual void step_whole(const at::Tensor& gradient, double learning_rate) = 0;
  virtual void step_without_gradient(double) {}

  nn::EmbeddingImpl& embedding_;
  const std::string name_;
  const at::Tensor table_;

 private:
  class Inbox;
  std::shared_ptr<Inbox> inbox_;
};

}  // namespace afm
