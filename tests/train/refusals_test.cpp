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

class ColumnModel : public Logistic {
 public:
  at::Tensor forward(const afm::Batch& batch) override { return Logistic::forward(batch).unsqueeze(1); }
};

}  // namespace

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
  Logistic frozen;
  for (auto& parameter : frozen.parameters()) parameter.set_requires_grad(false);
  CHECK_THROWS_MATCHES(
      afm::train(frozen, rows, rows), std::invalid_argument,
      Message("the model must have a parameter that requires a gradient to be trained, got none of 2"));
  ColumnModel column;
  CHECK_THROWS_MATCHES(afm::train(column, rows, rows, {.batch_size = 100}), std::invalid_argument,
                       Message("model 'logistic' must give one logit per row, [100], got [100, 1]"));
}
