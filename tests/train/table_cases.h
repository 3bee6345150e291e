#pragma once

// One embedding of any form, trained on batches that seldom read most of its rows.

#include <limits>
#include <memory>
#include <vector>

#include <torch/torch.h>

#include "libafm/train/make_optimizer.h"
#include "tests/nn/embedding_cases.h"

namespace afm::testing {

inline constexpr int64_t kAlways = 0, kNever = std::numeric_limits<int64_t>::max();  // for lazy_elements

struct Tables : torch::nn::Module {
  explicit Tables(const nn::Embedding& chosen) : embedding(register_module("embedding", chosen)) {}
  nn::Embedding embedding;
};

// Some of the forms of an embedding, all with values to train.
inline std::vector<nn::EmbeddingCase> trained_cases() {
  std::vector<nn::EmbeddingCase> some;
  const auto cases = nn::embedding_cases();
  for (std::size_t i = 0; i < cases.size(); i += 7) {
    const nn::Embedding probe(cases[i].options);
    if ((probe->is_dense() ? probe->weight : probe->latent).numel() > 0) some.push_back(cases[i]);
  }
  return some;
}

struct TableBatch {
  at::Tensor ids, targets;
  double learning_rate;
};

// Mostly id 0 of each field: the others are read again after some hundred steps.
inline std::vector<TableBatch> rare_batches(const nn::EmbeddingOptions& options, int64_t steps) {
  nn::Embedding probe = nn::random_embedding(options);
  std::vector<TableBatch> batches;
  for (int64_t step = 0; step < steps; ++step) {
    at::Tensor ids = nn::random_ids(options, 3);
    ids.masked_fill_((torch::rand(ids.sizes()) < 0.97).logical_and(ids.gt(0)), 0);
    const double rate = 1e-2 * torch::rand({}).item<double>();
    batches.push_back({ids, torch::randn_like(nn::joined(probe->lookup(ids)).detach()), rate});
  }
  return batches;
}

// A copy of an embedding and an optimizer of its own.
class TableTrainer {
 public:
  TableTrainer(const nn::Embedding& start, const TrainOptions& options, int64_t lazy_elements,
               at::ScalarType dtype = at::kFloat)
      : model_(nn::Embedding(std::dynamic_pointer_cast<nn::EmbeddingImpl>(start->clone()))) {
    model_.to(dtype);
    optimizer = make_optimizer(model_, options, lazy_elements);
  }

  // Returns what the lookup gave.
  at::Tensor step(const TableBatch& batch) {
    optimizer->zero_grad();
    const at::Tensor read = nn::joined(embedding()->lookup(batch.ids));
    (read - batch.targets.to(read.dtype())).square().sum().backward();
    optimizer->step(batch.learning_rate);
    return read.detach();
  }

  nn::Embedding& embedding() { return model_.embedding; }
  at::Tensor table() {
    auto& held = model_.embedding;
    return (held->is_dense() ? held->weight : held->latent).detach();
  }
  std::vector<at::Tensor> parameters() { return model_.parameters(); }

 private:
  Tables model_;

 public:
  std::unique_ptr<Optimizer> optimizer;
};

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return a.numel() == 0 ? 0.0 : (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace afm::testing
