#include "libafm/train/trainer.h"

#include <stdexcept>
#include <vector>

#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include "libafm/metrics/metrics.h"
#include "tests/train/planted.h"

using afm::TrainOptions;
using afm::testing::fresh_network;
using afm::testing::Logistic;
using afm::testing::Network;
using afm::testing::planted_clicks;
using afm::testing::same_bytes;
using Catch::Matchers::Message;
using Catch::Matchers::WithinAbs;

TEST_CASE("training learns a planted logistic model up to the Bayes AUC") {
  const auto train_set = planted_clicks(20000, 1).dataset;
  const auto valid = planted_clicks(10000, 2);
  const double bayes = afm::auc(valid.logits, valid.dataset.range(0, 10000).label);
  REQUIRE(bayes > 0.75);
  Logistic model;
  CHECK(afm::evaluate(model, valid.dataset).auc < 0.6);
  const auto history =
      afm::train(model, train_set, valid.dataset, {.epochs = 8, .batch_size = 500, .learning_rate = 2e-2});
  const auto metrics = afm::evaluate(model, valid.dataset);
  CHECK(metrics.auc > bayes - 0.003);
  CHECK(metrics.auc <= bayes + 0.001);
  CHECK(metrics.logloss < afm::logloss(valid.logits, valid.dataset.range(0, 10000).label) + 0.005);

  const auto& best = history.epochs[static_cast<std::size_t>(history.best_epoch) - 1];
  CHECK(metrics.auc == best.valid_auc);
  CHECK(metrics.logloss == best.valid_logloss);
  CHECK(best.train_loss < history.epochs.front().train_loss);
}

TEST_CASE("a penalty shrinks the table towards 0") {
  const auto train_set = planted_clicks(4000, 1).dataset;
  const auto norm_after = [&](double l2) {
    torch::manual_seed(1);
    Logistic model;
    afm::train(model, train_set, train_set,
               {.epochs = 5, .batch_size = 500, .learning_rate = 2e-2, .embedding_l2 = l2});
    return model.embedding->weight.norm().item<double>();
  };
  CHECK(norm_after(0.05) < 0.5 * norm_after(0.0));
}

TEST_CASE("the same seed gives the same bytes, another seed others") {
  const auto train_set = planted_clicks(1000, 1).dataset;
  const auto trained = [&](int64_t seed) {
    const auto network = fresh_network();
    afm::train(*network, train_set, train_set, {.epochs = 2, .batch_size = 128, .seed = seed});
    return network;
  };
  CHECK(same_bytes(*trained(1), *trained(1)));
  CHECK_FALSE(same_bytes(*trained(1), *trained(2)));
}

TEST_CASE("a last batch of one row is left out") {
  const auto train_set = planted_clicks(201, 1).dataset;
  std::vector<int64_t> batches;
  const auto note = [&](const afm::Progress& progress) {
    if (progress.finished) batches.push_back(progress.batches);
  };
  afm::train(*fresh_network(), train_set, train_set, {.epochs = 1, .batch_size = 100}, note);
  afm::train(*fresh_network(), train_set, train_set, {.epochs = 1, .batch_size = 99}, note);
  CHECK(batches == std::vector<int64_t>{2, 3});
}

TEST_CASE("the train loss is the mean over rows, also with a smaller last batch") {
  const auto train_set = planted_clicks(150, 1).dataset;
  Logistic model;
  // The first step is the only one before which the weights are those of the start; a step of 1e-30 changes nothing.
  const double before = afm::evaluate(model, train_set).logloss;
  const auto history =
      afm::train(model, train_set, train_set, {.epochs = 1, .batch_size = 100, .learning_rate = 1e-30});
  CHECK_THAT(history.epochs[0].train_loss, WithinAbs(before, 1e-6));
}

TEST_CASE("progress is told after each epoch with its record") {
  const auto train_set = planted_clicks(1000, 1).dataset;
  std::vector<afm::EpochRecord> records;
  const auto note = [&](const afm::Progress& progress) {
    CHECK(progress.epochs == 3);
    CHECK(progress.batches == 10);
    if (!progress.finished) return;
    CHECK(progress.batch == 10);
    CHECK(progress.epoch == progress.finished->epoch);
    records.push_back(*progress.finished);
  };
  const auto history = afm::train(*fresh_network(), train_set, train_set, {.epochs = 3, .batch_size = 100}, note);
  REQUIRE(records.size() == history.epochs.size());
  for (std::size_t i = 0; i < records.size(); ++i) CHECK(records[i].valid_auc == history.epochs[i].valid_auc);
  CHECK(records.front().rows_per_second > 0);
}

TEST_CASE("an exception of the callback passes through, with the best weights in the model") {
  const auto train_set = planted_clicks(1000, 1).dataset;
  const auto stopped = fresh_network(), whole = fresh_network();
  const auto stop = [](const afm::Progress& progress) {
    if (progress.epoch == 2 && progress.finished != nullptr) throw std::runtime_error("stopped by the caller");
  };
  CHECK_THROWS_MATCHES(
      afm::train(*stopped, train_set, train_set, {.epochs = 3, .batch_size = 100, .patience = 0}, stop),
      std::runtime_error, Message("stopped by the caller"));
  const auto history = afm::train(*whole, train_set, train_set, {.epochs = 2, .batch_size = 100, .patience = 0});
  REQUIRE(history.best_epoch == 2);
  CHECK(same_bytes(*stopped, *whole));
}

TEST_CASE("training leaves mode, gradients and the caller's gradient switch as they were") {
  const auto train_set = planted_clicks(500, 1).dataset;
  const auto network = fresh_network();
  network->eval();
  {
    const torch::NoGradGuard no_grad;
    afm::train(*network, train_set, train_set, {.epochs = 1, .batch_size = 100});
    CHECK_FALSE(torch::GradMode::is_enabled());
  }
  CHECK_FALSE(network->is_training());
  CHECK(network->norm->num_batches_tracked.item<int64_t>() == 5);
  for (const auto& parameter : network->parameters()) CHECK_FALSE(parameter.grad().defined());
}

TEST_CASE("a frozen parameter stays, penalty or not") {
  const auto train_set = planted_clicks(500, 1).dataset;
  const auto network = fresh_network();
  const auto before = network->embedding->weight.detach().clone();
  network->embedding->weight.set_requires_grad(false);
  afm::train(*network, train_set, train_set, {.epochs = 1, .batch_size = 100, .embedding_l2 = 0.1});
  CHECK(torch::equal(network->embedding->weight, before));
}
