#include <limits>
#include <memory>
#include <stdexcept>

#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "libafm/core/error.h"
#include "libafm/train/trainer.h"
#include "tests/train/planted.h"

using afm::testing::fresh_network;
using afm::testing::Logistic;
using afm::testing::Network;
using afm::testing::planted_clicks;
using afm::testing::same_bytes;
using Catch::Matchers::Message;

namespace {

// Logits become NaN from training forward number `good` on.
class Failing : public Logistic {
 public:
  explicit Failing(int64_t good) : good_(good) {}
  at::Tensor forward(const afm::Batch& batch) override {
    const auto logits = Logistic::forward(batch);
    if (!is_training() || good_-- > 0) return logits;
    return logits * std::numeric_limits<double>::quiet_NaN();
  }

 private:
  int64_t good_;
};

class ColumnModel : public Logistic {
 public:
  at::Tensor forward(const afm::Batch& batch) override { return Logistic::forward(batch).unsqueeze(1); }
};

}  // namespace

TEST_CASE("a loss that is not finite names epoch and batches, and the best weights stay") {
  const auto rows = planted_clicks(1000, 1).dataset;
  torch::manual_seed(1);
  Failing failing(14);
  torch::manual_seed(1);
  Logistic whole;
  const afm::TrainOptions options{.epochs = 5, .batch_size = 100, .learning_rate = 1e-2};
  CHECK_THROWS_MATCHES(
      afm::train(failing, rows, rows, options), afm::Error,
      Message("the training loss became nan in epoch 2, batches 1 to 10; lower TrainOptions.learning_rate"));
  auto one_epoch = options;
  one_epoch.epochs = 1;
  afm::train(whole, rows, rows, one_epoch);
  CHECK(same_bytes(failing, whole));
}

TEST_CASE("the loss is looked at every 50 batches, and the start's weights stay when the first epoch fails") {
  const auto rows = planted_clicks(800, 1).dataset;
  torch::manual_seed(1);
  Failing failing(60);
  const auto before = failing.embedding->weight.detach().clone();
  CHECK_THROWS_MATCHES(
      afm::train(failing, rows, rows, {.epochs = 1, .batch_size = 8}), afm::Error,
      Message("the training loss became nan in epoch 1, batches 51 to 100; lower TrainOptions.learning_rate"));
  CHECK(torch::equal(failing.embedding->weight, before));
}

TEST_CASE("weights that overflow in the last step of an epoch are found before the metrics") {
  const auto rows = planted_clicks(100, 1).dataset;
  Logistic model;
  CHECK_THROWS_MATCHES(afm::train(model, rows, rows, {.epochs = 1, .batch_size = 100, .learning_rate = 1e300}),
                       afm::Error,
                       Message("the validation logits after epoch 1 are not finite; lower TrainOptions.learning_rate"));
}

TEST_CASE("data that cannot be learned from or does not fit is refused before training") {
  const auto rows = planted_clicks(100, 1).dataset;
  Logistic model;
  CHECK_THROWS_MATCHES(afm::train(model, rows, afm::testing::with_labels(rows, torch::ones({100}))), afm::DataError,
                       Message("the validation set must have rows of label 0 and of label 1, got only label 1"));
  CHECK_THROWS_MATCHES(afm::train(model, planted_clicks(1, 1).dataset, rows), afm::DataError,
                       Message("the training set must have at least 2 rows, got 1"));

  auto schema = afm::testing::planted_schema();
  schema.fields[0].cardinality += 1;
  const auto foreign = afm::Dataset::from_tensors(schema, rows.range(0, 100));
  const auto sentence =
      Message("the dataset does not fit the model: field 'user' has cardinality 20 in the model, 21 in the dataset");
  CHECK_THROWS_MATCHES(afm::train(model, foreign, rows), afm::DataError, sentence);
  CHECK_THROWS_MATCHES(afm::train(model, rows, foreign), afm::DataError, sentence);
}

TEST_CASE("bad options and a model whose logits have another shape are refused by train") {
  const auto rows = planted_clicks(100, 1).dataset;
  Logistic model;
  CHECK_THROWS_MATCHES(afm::train(model, rows, rows, {.epochs = 0}), std::invalid_argument,
                       Message("TrainOptions.epochs must be at least 1, got 0"));
  ColumnModel column;
  CHECK_THROWS_MATCHES(afm::train(column, rows, rows, {.batch_size = 100}), std::invalid_argument,
                       Message("model 'logistic' must give one logit per row, [100], got [100, 1]"));
}
