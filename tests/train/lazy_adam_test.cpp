#include <algorithm>
#include <limits>

#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

#include "libafm/core/error.h"
#include "libafm/train/adam.h"
#include "tests/train/table_cases.h"

using afm::TensorMap;
using afm::nn::Embedding;
using afm::nn::EmbeddingOptions;
using Catch::Matchers::Message;
using namespace afm::testing;

namespace {

// Parameters are of size 1: some hundred roundings of float32, with the room that another order of them needs.
constexpr double kTolerance = 1e-5;

EmbeddingOptions wide_table() {
  return {.cardinalities = {40, 3, 300}, .embedding_dim = 16, .wide = true, .init_std = 1.0};
}

TensorMap copied(TensorMap state) {
  for (auto& [name, tensor] : state) tensor = tensor.clone();
  return state;
}

void copy_values(TableTrainer& from, TableTrainer& to) {
  const torch::NoGradGuard no_grad;
  for (std::size_t i = 0; i < from.parameters().size(); ++i) to.parameters()[i].copy_(from.parameters()[i]);
}

bool same_values(TableTrainer& a, TableTrainer& b) {
  for (std::size_t i = 0; i < a.parameters().size(); ++i) {
    if (!torch::equal(a.parameters()[i], b.parameters()[i])) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("a lazily trained table of any form equals Adam in float64 over random batches") {
  torch::manual_seed(1);
  const double l2 = GENERATE(0.0, 0.05);
  for (const auto& [name, form] : trained_cases()) {
    CAPTURE(name, l2);
    const Embedding start = afm::nn::random_embedding(form);
    TableTrainer lazy(start, {.embedding_l2 = l2}, kAlways), exact(start, {.embedding_l2 = l2}, kNever, at::kDouble);
    double read_apart = 0;
    for (const TableBatch& batch : rare_batches(form, 500)) {
      read_apart = std::max(read_apart, largest_difference(lazy.step(batch), exact.step(batch)));
    }
    CHECK(read_apart < 10 * kTolerance);  // what the model saw on the way: sums of up to six values
    lazy.optimizer->flush();
    for (std::size_t p = 0; p < lazy.parameters().size(); ++p) {
      CHECK(largest_difference(lazy.parameters()[p], exact.parameters()[p]) < kTolerance);
    }
  }
}

TEST_CASE("rows are behind until they are read or flushed, and are then no further off than dense float32") {
  torch::manual_seed(2);
  const double l2 = GENERATE(0.0, 0.05);
  const Embedding start = afm::nn::random_embedding(wide_table());
  const afm::TrainOptions options{.embedding_l2 = l2};
  TableTrainer lazy(start, options, kAlways), dense(start, options, kNever), exact(start, options, kNever, at::kDouble);
  for (const TableBatch& batch : rare_batches(wide_table(), 1000)) {
    lazy.step(batch);
    dense.step(batch);
    exact.step(batch);
  }
  CHECK(largest_difference(lazy.table(), exact.table()) > 100 * kTolerance);
  lazy.optimizer->flush();
  const double rounding = largest_difference(dense.table(), exact.table());
  CHECK(largest_difference(lazy.table(), exact.table()) < std::max(2 * rounding, 1e-6));
}

TEST_CASE("gradients as small as epsilon do not break the sum of missed steps") {
  torch::manual_seed(3);
  const Embedding start = afm::nn::random_embedding(wide_table());
  TableTrainer lazy(start, {}, kAlways), exact(start, {}, kNever, at::kDouble);
  for (TableBatch batch : rare_batches(wide_table(), 1000)) {
    const double scale = std::pow(10.0, -4 - 8 * torch::rand({}).item<double>());
    for (TableTrainer* trainer : {&lazy, &exact}) {
      trainer->optimizer->zero_grad();
      const auto read = afm::nn::joined(trainer->embedding()->lookup(batch.ids));
      (read * batch.targets.to(read.dtype())).sum().mul(scale).backward();
      trainer->optimizer->step(batch.learning_rate);
    }
  }
  CHECK(largest_difference(lazy.table(), exact.table()) > 100 * kTolerance);
  lazy.optimizer->flush();
  CHECK(largest_difference(lazy.table(), exact.table()) < kTolerance);
}

TEST_CASE("a run that goes on from state and parameters, rows behind, equals one that never stopped, bitwise") {
  torch::manual_seed(4);
  const double l2 = GENERATE(0.0, 0.05);
  const Embedding start = afm::nn::random_embedding(wide_table());
  TableTrainer whole(start, {.embedding_l2 = l2}, kAlways);
  auto stopped = std::make_unique<TableTrainer>(start, afm::TrainOptions{.embedding_l2 = l2}, kAlways);
  const auto batches = rare_batches(wide_table(), 400);
  for (std::size_t i = 0; i < batches.size(); ++i) {
    whole.step(batches[i]);
    stopped->step(batches[i]);
    if (i % 150 == 149) {  // an epoch's end
      whole.optimizer->flush();
      stopped->optimizer->flush();
    }
    if (i % 37 != 36) continue;
    auto next = std::make_unique<TableTrainer>(start, afm::TrainOptions{.embedding_l2 = l2}, kAlways);
    copy_values(*stopped, *next);
    next->optimizer->load_state(copied(stopped->optimizer->state()), "the test");
    stopped = std::move(next);
  }
  whole.optimizer->flush();
  stopped->optimizer->flush();
  CHECK(same_values(whole, *stopped));
}

TEST_CASE("the gradient of a whole table, and two lookups in one step, are Adam's as well") {
  torch::manual_seed(5);
  const double l2 = GENERATE(0.0, 0.05);
  const Embedding start = afm::nn::random_embedding(wide_table());
  TableTrainer lazy(start, {.embedding_l2 = l2}, kAlways), exact(start, {.embedding_l2 = l2}, kNever, at::kDouble);
  const auto batches = rare_batches(wide_table(), 300);
  for (std::size_t i = 1; i < batches.size(); ++i) {
    for (TableTrainer* trainer : {&lazy, &exact}) {
      trainer->optimizer->zero_grad();
      auto& embedding = trainer->embedding();
      auto loss = afm::nn::joined(embedding->lookup(batches[i].ids)).square().sum();
      if (i % 3 == 1) loss = loss + 2 * afm::nn::joined(embedding->lookup(batches[i - 1].ids)).sum();
      if (i % 20 == 0) loss = loss + embedding->weight.select(1, 3).exp().mean();
      loss.backward();
      trainer->optimizer->step(batches[i].learning_rate);
      if (i % 20 == 19) trainer->optimizer->flush();  // who reads the table itself asks for that
    }
  }
  lazy.optimizer->flush();
  CHECK(largest_difference(lazy.table(), exact.table()) < kTolerance);
}

TEST_CASE("a state of Adam is taken over, and a state with rows of other steps is refused") {
  torch::manual_seed(6);
  const Embedding start = afm::nn::random_embedding(wide_table());
  TableTrainer lazy(start, {}, kAlways), dense(start, {}, kNever);
  const auto batches = rare_batches(wide_table(), 60);
  for (const auto& batch : batches) dense.step(batch);
  copy_values(dense, lazy);
  lazy.optimizer->load_state(copied(dense.optimizer->state()), "'a.ckpt'");
  for (const auto& batch : batches) CHECK(largest_difference(dense.step(batch), lazy.step(batch)) < kTolerance);

  auto state = copied(lazy.optimizer->state());
  state["embedding.weight.rows"][0] = 1000000;
  CHECK_THROWS_MATCHES(lazy.optimizer->load_state(state, "'a.ckpt'"), afm::FormatError,
                       Message("'a.ckpt' has 'embedding.weight.rows' of other steps"));
  state["embedding.weight.step"].fill_(std::numeric_limits<float>::quiet_NaN());
  CHECK_THROWS_MATCHES(lazy.optimizer->load_state(state, "'a.ckpt'"), afm::FormatError,
                       Message("'a.ckpt' has a 'embedding.weight.step' that is no number of steps"));
  state.erase("embedding.weight.mean");
  CHECK_THROWS_MATCHES(lazy.optimizer->load_state(state, "'a.ckpt'"), afm::FormatError,
                       Message("'a.ckpt' lacks the optimizer's tensor 'embedding.weight.mean'"));
  auto surplus = copied(lazy.optimizer->state());
  surplus["v.mean"] = torch::zeros({6});
  CHECK_THROWS_MATCHES(lazy.optimizer->load_state(surplus, "'a.ckpt'"), afm::FormatError,
                       Message("'a.ckpt' has an optimizer's tensor 'v.mean' of no parameter"));
}

TEST_CASE("a graph and a copy of the layer may outlive the optimizer") {
  torch::manual_seed(7);
  Embedding embedding = afm::nn::random_embedding(wide_table());
  Tables model(embedding);
  const auto ids = afm::nn::random_ids(wide_table(), 5);
  auto optimizer = afm::make_optimizer(model, {}, kAlways);
  const auto late = afm::nn::joined(embedding->lookup(ids)).sum();
  Embedding copy(std::dynamic_pointer_cast<afm::nn::EmbeddingImpl>(embedding->clone()));
  optimizer.reset();
  late.backward();
  CHECK_FALSE(embedding->weight.grad().defined());
  afm::nn::joined(embedding->lookup(ids)).sum().backward();
  CHECK(embedding->weight.grad().count_nonzero().item<int64_t>() > 0);
  afm::nn::joined(copy->lookup(ids)).sum().backward();
  CHECK(torch::equal(copy->weight.grad(), embedding->weight.grad()));
}
