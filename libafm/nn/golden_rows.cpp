#include "libafm/nn/golden_rows.h"

#include <algorithm>
#include <exception>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <torch/types.h>

namespace afm {
namespace {

constexpr int64_t kRows = 4;
constexpr uint64_t kSeed = 20240814;

// Evaluation mode of every module of a tree, each back to its own mode at the end of the scope.
class EveryModuleEvaluates {
 public:
  explicit EveryModuleEvaluates(torch::nn::Module& model) : model_(model) {
    for (const auto& module : model.modules(/*include_self=*/false)) modes_.emplace_back(module, module->is_training());
    was_training_ = model.is_training();
    model.eval();
  }
  ~EveryModuleEvaluates() {
    model_.train(was_training_);
    // Parents come before their children.
    for (const auto& [module, training] : modes_) module->train(training);
  }
  EveryModuleEvaluates(const EveryModuleEvaluates&) = delete;
  EveryModuleEvaluates& operator=(const EveryModuleEvaluates&) = delete;

 private:
  torch::nn::Module& model_;
  std::vector<std::pair<std::shared_ptr<torch::nn::Module>, bool>> modes_;
  bool was_training_ = false;
};

// A generator of its own: saving a model must not move torch's, on which a resumed training relies.
at::Tensor golden_ids(const Schema& schema, std::mt19937_64& random) {
  std::vector<int32_t> ids;
  for (int64_t row = 0; row < kRows; ++row) {
    for (const FieldSpec& field : schema.fields) {
      const bool leaves_empty = row == kRows - 1 && field.kind == FieldKind::kMulti;
      const int64_t filled = leaves_empty ? field.slots() / 2 : field.slots();
      for (int64_t slot = 0; slot < field.slots(); ++slot) {
        const auto any = static_cast<int64_t>(random() % static_cast<uint64_t>(field.cardinality));
        const int64_t id = row < 2 ? std::min(row, field.cardinality - 1) : any;
        ids.push_back(static_cast<int32_t>(slot < filled ? id : kEmptySlot));
      }
    }
  }
  return at::tensor(ids, at::kInt).view({kRows, schema.slot_count()});
}

at::Tensor golden_dense(const Schema& schema, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(kRows * schema.dense_count()));
  for (float& value : values) value = normal(random);
  return at::tensor(values, at::kFloat).view({kRows, schema.dense_count()});
}

}  // namespace

TensorMap golden_rows_of(const Model& model) {
  if (at::elementSize(model.dtype()) < sizeof(float)) return {};
  try {
    check_counted(model.schema());
    const torch::NoGradGuard no_grad;
    auto& computing = const_cast<Model&>(model);  // its modes come back as they were
    const EveryModuleEvaluates evaluating(computing);
    std::mt19937_64 random(kSeed);
    TensorMap golden = {{"golden.ids", golden_ids(model.schema(), random)},
                        {"golden.dense", golden_dense(model.schema(), random)}};
    const Batch batch{.ids = golden["golden.ids"], .dense = golden["golden.dense"], .label = {}};
    const at::Tensor logits = computing.forward(batch.to(model.device())).to(at::kCPU, at::kFloat);
    if (logits.dim() != 1 || logits.size(0) != kRows || !logits.isfinite().all().item<bool>()) return {};
    golden["golden.logits"] = logits;
    if (model.schema().dense_count() == 0) golden.erase("golden.dense");
    return golden;
  } catch (const std::exception&) {
    return {};  // a model that cannot compute can still be saved, and be looked into
  }
}

}  // namespace afm
