#include "libafm/train/history.h"

#include <nlohmann/json.hpp>

#include <catch2/catch_test_macros.hpp>

namespace {

afm::History two_epochs() {
  return {.epochs = {{.epoch = 1,
                      .train_loss = 0.1 + 0.2,
                      .valid_auc = 1.0 / 3.0,
                      .valid_logloss = 1e-17,
                      .learning_rate = 1e-3,
                      .seconds = 2.5,
                      .rows_per_second = 28800.125},
                     {.epoch = 2, .valid_auc = 0.5}},
          .best_epoch = 2,
          .stopped_early = true};
}

}  // namespace

TEST_CASE("a history as JSON has every number") {
  const auto json = nlohmann::json::parse(afm::history_to_json(two_epochs()));
  CHECK(json.at("best_epoch") == 2);
  CHECK(json.at("stopped_early") == true);
  REQUIRE(json.at("epochs").size() == 2);
  const auto& first = json.at("epochs")[0];
  CHECK(first.at("epoch") == 1);
  CHECK(first.at("learning_rate") == 1e-3);
  CHECK(first.at("rows_per_second") == 28800.125);
  CHECK(first.size() == 7);
}

TEST_CASE("a history survives JSON bitwise") {
  const auto history = two_epochs();
  const auto again = afm::history_of(nlohmann::ordered_json::parse(afm::history_to_json(history)));
  CHECK(afm::history_to_json(again) == afm::history_to_json(history));
  CHECK(again.epochs[0].train_loss == history.epochs[0].train_loss);
  CHECK(again.epochs[0].valid_auc == history.epochs[0].valid_auc);
  CHECK(again.epochs[0].valid_logloss == history.epochs[0].valid_logloss);
}
