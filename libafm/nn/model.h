#pragma once

// The interface that training, compression and files know of a model. A model is built from options, a schema and a
// rank plan (empty = dense); loading a compressed model and a dense one is the same code.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <torch/nn/module.h>

#include "libafm/data/batch.h"
#include "libafm/data/schema.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

class Model;

// A part of a model that cannot be folded, and why.
struct Refusal {
  std::string part, reason;
};

// What fold() gives (libafm/compress/fold.h).
struct FoldResult {
  std::shared_ptr<Model> model;
  std::vector<Refusal> refused = {};          // what the model keeps as it was
  std::vector<std::string> requantized = {};  // layers of integers whose weights changed and were rounded anew
};

class Model : public torch::nn::Module {
 public:
  explicit Model(Schema schema) : schema_(std::move(schema)) {}

  virtual at::Tensor forward(const Batch& batch) = 0;  // logits [B]
  virtual std::string_view kind() const = 0;           // "deepfm": its name in model files and on the command line
  virtual std::string options_json() const = 0;        // every option, as JSON
  // A model of the same kind and schema, with other options (JSON as options_json() gives it; a field that is left out
  // has its default), other ranks and fresh weights (CPU, float32). Throws std::invalid_argument for bad options and
  // for ranks that do not fit.
  virtual std::shared_ptr<Model> rebuild(std::string_view options_json, const RankPlan& plan) const = 0;
  // The same with the options that it has.
  std::shared_ptr<Model> build_like(const RankPlan& plan) const { return rebuild(options_json(), plan); }

  // Whether forward() does the same work on the device for every batch of one size, and nothing elsewhere that another
  // batch would need again: then a training step on a GPU can be recorded and repeated (TrainOptions::cuda_graph).
  virtual bool repeats_itself() const { return false; }

  // The model with the basis and offset of its embedding folded into what reads them; see fold(). By default a copy,
  // with a refusal.
  virtual FoldResult folded() const;

  const Schema& schema() const { return schema_; }
  at::Device device() const;
  at::ScalarType dtype() const;

  // Text that travels with the model through copies and files, such as the options that it was trained with.
  std::map<std::string, std::string> notes;

 private:
  Schema schema_;
};

// A deep copy: same ranks, weights, buffers, dtype, device and training mode.
std::shared_ptr<Model> copy_of(const Model& model);

// Switches a module tree to evaluation mode and back at the end of the scope.
class EvaluationMode {
 public:
  explicit EvaluationMode(torch::nn::Module& module) : module_(module), was_training_(module.is_training()) {
    module_.eval();
  }
  ~EvaluationMode() { module_.train(was_training_); }
  EvaluationMode(const EvaluationMode&) = delete;
  EvaluationMode& operator=(const EvaluationMode&) = delete;

 private:
  torch::nn::Module& module_;
  bool was_training_;
};

// Parameters and bytes of one part of a model: "embedding", "wide", "mlp", "cross", or the module's own name. Bytes
// count parameters and buffers (batch norm statistics) as a model file stores them: integers with their scales.
struct GroupSize {
  std::string group;
  int64_t parameters = 0;
  int64_t bytes = 0;
};
std::vector<GroupSize> size_by_group(const torch::nn::Module& module);
int64_t parameter_count(const torch::nn::Module& module);
int64_t byte_count(const torch::nn::Module& module);  // parameters and buffers

}  // namespace afm
