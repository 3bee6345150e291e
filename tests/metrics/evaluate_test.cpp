#include <stdexcept>
#include <vector>

#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

#include "libafm/metrics/metrics.h"
#include "tests/metrics/tiny_model.h"

using afm::testing::tiny_dataset;
using afm::testing::TinyModel;
using Catch::Matchers::Message;

TEST_CASE("predict gives every row's logit in order, whatever the batch size") {
  torch::manual_seed(1);
  TinyModel model;
  const auto dataset = tiny_dataset(101);
  const auto logits = afm::predict(model, dataset, {.batch_size = 101});
  const auto ids = dataset.range(0, 101).ids.to(torch::kInt64);
  const auto expected =
      model.user_weight.index_select(0, ids.select(1, 0)) + model.item_weight.index_select(0, ids.select(1, 1));
  CHECK(torch::equal(logits, expected));
  for (const int64_t batch_size : {1, 7, 100, 1000}) {
    CHECK(torch::equal(afm::predict(model, dataset, {.batch_size = batch_size}), logits));
  }
}

TEST_CASE("predict runs in evaluation mode without gradient and leaves the mode as it was") {
  torch::manual_seed(2);
  TinyModel model;
  const auto dataset = tiny_dataset(50);
  model.train();
  CHECK_FALSE(torch::equal(model.forward(dataset.range(0, 50)), model.forward(dataset.range(0, 50))));
  const auto logits = afm::predict(model, dataset);
  CHECK(torch::equal(logits, afm::predict(model, dataset)));
  CHECK_FALSE(logits.requires_grad());
  CHECK(model.is_training());
  model.eval();
  afm::predict(model, dataset);
  CHECK_FALSE(model.is_training());
}

TEST_CASE("evaluate is the metrics of predict") {
  torch::manual_seed(3);
  TinyModel model;
  const auto dataset = tiny_dataset(500);
  const auto logits = afm::predict(model, dataset);
  const auto label = dataset.range(0, 500).label;
  const auto metrics = afm::evaluate(model, dataset, {.batch_size = 77});
  CHECK(metrics.auc == afm::auc(logits, label));
  CHECK(metrics.logloss == afm::logloss(logits, label));
  CHECK(metrics.rows == 500);
  REQUIRE(metrics.unknown.size() == 2);
  CHECK(metrics.unknown[1].share == dataset.range(0, 500).ids.select(1, 1).eq(0).to(at::kDouble).mean().item<double>());
}

TEST_CASE("progress is told after each batch and may stop the pass") {
  TinyModel model;
  const auto dataset = tiny_dataset(25);
  std::vector<int64_t> told;
  afm::predict(model, dataset, {.batch_size = 10, .on_progress = [&](int64_t rows) { told.push_back(rows); }});
  CHECK(told == std::vector<int64_t>{10, 20, 25});
  const auto stop = [](int64_t) { throw std::runtime_error("stopped by the caller"); };
  CHECK_THROWS_MATCHES(afm::evaluate(model, dataset, {.batch_size = 10, .on_progress = stop}), std::runtime_error,
                       Message("stopped by the caller"));
  CHECK(model.is_training());
}

namespace {

class ColumnModel : public TinyModel {
 public:
  at::Tensor forward(const afm::Batch& batch) override { return TinyModel::forward(batch).unsqueeze(1); }
};

}  // namespace

TEST_CASE("evaluation refuses a bad batch size and a model whose logits have another shape") {
  TinyModel model;
  const auto dataset = tiny_dataset(25);
  CHECK_THROWS_MATCHES(afm::predict(model, dataset, {.batch_size = 0}), std::invalid_argument,
                       Message("EvaluateOptions.batch_size must be at least 1, got 0"));
  ColumnModel column;
  CHECK_THROWS_MATCHES(afm::predict(column, dataset), std::invalid_argument,
                       Message("model 'tiny' must give one logit per row, [25], got [25, 1]"));
}
