#include "libafm/train/schedule.h"

#include <vector>

#include <catch2/catch_test_macros.hpp>

#include "libafm/train/trainer.h"
#include "tests/train/planted.h"

using afm::History;
using afm::Schedule;
using afm::TrainOptions;
using afm::testing::fresh_network;
using afm::testing::planted_clicks;

namespace {

History history_of_aucs(const std::vector<double>& aucs) {
  History history;
  for (const double auc : aucs) {
    afm::add_epoch(history, {.epoch = static_cast<int64_t>(history.epochs.size()) + 1, .valid_auc = auc});
  }
  return history;
}

// Validation clicks that are the opposite of the training clicks: every epoch of learning lowers the AUC.
afm::Dataset contrary(const afm::Dataset& dataset) {
  return afm::testing::with_labels(dataset, 1 - dataset.range(0, dataset.size()).label);
}

std::vector<double> learning_rates(const History& history) {
  std::vector<double> rates;
  for (const auto& record : history.epochs) rates.push_back(record.learning_rate);
  return rates;
}

}  // namespace

TEST_CASE("an epoch is the best when its AUC is better by more than 1e-6") {
  CHECK(history_of_aucs({0.7}).best_epoch == 1);
  CHECK(history_of_aucs({0.7, 0.8, 0.75}).best_epoch == 2);
  CHECK(history_of_aucs({0.7, 0.7 + 5e-7}).best_epoch == 1);
  CHECK(history_of_aucs({0.7, 0.7 + 2e-6}).best_epoch == 2);
  CHECK(history_of_aucs({0.0, 0.0}).best_epoch == 1);
}

TEST_CASE("patience counts epochs in a row and starts anew at a gain") {
  const TrainOptions options{.patience = 2};
  CHECK_FALSE(out_of_patience(options, {}));
  CHECK_FALSE(out_of_patience(options, history_of_aucs({0.7, 0.6})));
  CHECK(out_of_patience(options, history_of_aucs({0.7, 0.6, 0.6})));
  CHECK_FALSE(out_of_patience(options, history_of_aucs({0.7, 0.6, 0.8, 0.6})));
  CHECK_FALSE(out_of_patience({.patience = 0}, history_of_aucs({0.7, 0.6, 0.6, 0.6})));
}

TEST_CASE("the linear schedule falls from the learning rate to 0 over all steps") {
  const TrainOptions linear{.learning_rate = 0.4, .schedule = Schedule::kLinear};
  CHECK(afm::learning_rate_at(linear, 0.4, 0, 8) == 0.4);
  CHECK(afm::learning_rate_at(linear, 0.4, 6, 8) == 0.1);
  CHECK(afm::learning_rate_at({.schedule = Schedule::kConstant}, 0.3, 6, 8) == 0.3);
}

TEST_CASE("without gains the plateau schedule decays, training stops, and the best weights return") {
  const auto train_set = planted_clicks(2000, 1).dataset;
  const TrainOptions options{.epochs = 9, .batch_size = 500, .learning_rate = 1e-2, .lr_decay = 0.5, .patience = 3};
  const auto network = fresh_network(), single = fresh_network();
  const auto history = afm::train(*network, train_set, contrary(train_set), options);
  CHECK(learning_rates(history) == std::vector<double>{1e-2, 1e-2, 5e-3, 2.5e-3});
  CHECK(history.best_epoch == 1);
  CHECK(history.stopped_early);

  auto one_epoch = options;
  one_epoch.epochs = 1;
  CHECK_FALSE(afm::train(*single, train_set, contrary(train_set), one_epoch).stopped_early);
  CHECK(afm::testing::same_bytes(*network, *single));
}

TEST_CASE("constant and linear schedules do not decay on a plateau, and patience 0 never stops") {
  const auto train_set = planted_clicks(1000, 1).dataset;
  TrainOptions options{
      .epochs = 4, .batch_size = 500, .learning_rate = 1e-2, .schedule = Schedule::kConstant, .patience = 0};
  const auto constant = afm::train(*fresh_network(), train_set, contrary(train_set), options);
  CHECK(learning_rates(constant) == std::vector<double>{1e-2, 1e-2, 1e-2, 1e-2});
  CHECK_FALSE(constant.stopped_early);
  options.schedule = Schedule::kLinear;
  const auto linear = afm::train(*fresh_network(), train_set, contrary(train_set), options);
  CHECK(learning_rates(linear) == std::vector<double>{1e-2, 0.75e-2, 0.5e-2, 0.25e-2});
}
