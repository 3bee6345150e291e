#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

#include "libafm/core/error.h"
#include "tests/train/table_cases.h"

using afm::OptimizerKind;
using afm::nn::Embedding;
using afm::nn::EmbeddingOptions;
using Catch::Matchers::Message;
using namespace afm::testing;

namespace {

constexpr double kRounding = 1e-5;  // of some hundred steps on parameters of size 1

afm::TrainOptions adagrad(double l2 = 0.0) {
  return {
      .learning_rate = 0.1, .optimizer = OptimizerKind::kAdagrad, .adagrad_learning_rate = 0.05, .embedding_l2 = l2};
}

EmbeddingOptions small_table() { return {.cardinalities = {30, 4}, .embedding_dim = 5, .wide = true, .init_std = 1.0}; }

}  // namespace

TEST_CASE("row-wise Adagrad in float32, row by row, equals itself in float64 on whole gradients") {
  torch::manual_seed(1);
  const double l2 = GENERATE(0.0, 0.05);
  for (const auto& [name, form] : trained_cases()) {
    CAPTURE(name, l2);
    const Embedding start = afm::nn::random_embedding(form);
    TableTrainer rows(start, adagrad(l2), kAlways), whole(start, adagrad(l2), kAlways, at::kDouble);
    for (const TableBatch& batch : rare_batches(form, 200)) {
      rows.step(batch);
      whole.step(batch);
    }
    for (std::size_t p = 0; p < rows.parameters().size(); ++p) {
      CHECK(largest_difference(rows.parameters()[p], whole.parameters()[p]) < kRounding);
    }
    CHECK(largest_difference(rows.table(), (form.ranks.empty() ? start->weight : start->latent).detach()) > kRounding);
  }
}

TEST_CASE("row-wise Adagrad is its formula") {
  torch::manual_seed(2);
  const Embedding start = afm::nn::random_embedding(small_table());
  TableTrainer trainer(start, adagrad(), kAlways);
  at::Tensor table = start->weight.detach().to(at::kDouble).clone();
  at::Tensor sums = torch::zeros({34, 2}, at::kDouble);
  for (const TableBatch& batch : rare_batches(small_table(), 40)) {
    at::Tensor leaf = table.clone().requires_grad_();
    const auto rows = leaf.index_select(0, (batch.ids + torch::tensor({0, 30})).view({-1})).view({-1, 2, 6});
    const auto read = torch::cat({rows.narrow(2, 0, 5).flatten(), rows.select(2, 5).sum(1)});
    (read - batch.targets).square().sum().backward();
    trainer.step(batch);
    const double rate = batch.learning_rate * 0.05 / 0.1;
    for (int64_t r = 0; r < 34; ++r) {
      const auto g = leaf.grad()[r];
      sums[r][0] += g.narrow(0, 0, 5).square().mean();
      sums[r][1] += g[5].square();
      table[r].narrow(0, 0, 5).sub_(rate * g.narrow(0, 0, 5) / (sums[r][0].sqrt() + 1e-8));
      table[r][5].sub_(rate * g[5] / (sums[r][1].sqrt() + 1e-8));
    }
  }
  CHECK(largest_difference(trainer.table(), table) < kRounding);
}

TEST_CASE("row-wise Adagrad goes on from its state, and refuses another's") {
  torch::manual_seed(3);
  const Embedding start = afm::nn::random_embedding(small_table());
  TableTrainer whole(start, adagrad(), kAlways), first(start, adagrad(), kAlways);
  const auto batches = rare_batches(small_table(), 40);
  for (std::size_t i = 0; i < 20; ++i) first.step(batches[i]);
  TableTrainer second(first.embedding(), adagrad(), kAlways);
  second.optimizer->load_state(first.optimizer->state(), "the test");
  for (std::size_t i = 0; i < 40; ++i) whole.step(batches[i]);
  for (std::size_t i = 20; i < 40; ++i) second.step(batches[i]);
  CHECK(torch::equal(whole.table(), second.table()));
  CHECK(whole.optimizer->state().contains("embedding.weight.sum"));
  TableTrainer adam(start, {}, kAlways);
  CHECK_THROWS_MATCHES(whole.optimizer->load_state(adam.optimizer->state(), "'a.ckpt'"), afm::FormatError,
                       Message("'a.ckpt' lacks the optimizer's tensor 'embedding.weight.sum'"));
}
