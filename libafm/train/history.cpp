#include "libafm/train/history.h"

namespace afm {
namespace {

using nlohmann::ordered_json;

ordered_json json_of(const EpochRecord& record) {
  return {{"epoch", record.epoch},
          {"train_loss", record.train_loss},
          {"valid_auc", record.valid_auc},
          {"valid_logloss", record.valid_logloss},
          {"learning_rate", record.learning_rate},
          {"seconds", record.seconds},
          {"rows_per_second", record.rows_per_second}};
}

EpochRecord record_of(const ordered_json& json) {
  return {.epoch = json.at("epoch").get<int64_t>(),
          .train_loss = json.at("train_loss").get<double>(),
          .valid_auc = json.at("valid_auc").get<double>(),
          .valid_logloss = json.at("valid_logloss").get<double>(),
          .learning_rate = json.at("learning_rate").get<double>(),
          .seconds = json.at("seconds").get<double>(),
          .rows_per_second = json.at("rows_per_second").get<double>()};
}

}  // namespace

ordered_json json_of(const History& history) {
  ordered_json epochs = ordered_json::array();
  for (const auto& record : history.epochs) epochs.push_back(json_of(record));
  return {{"best_epoch", history.best_epoch}, {"stopped_early", history.stopped_early}, {"epochs", std::move(epochs)}};
}

History history_of(const ordered_json& json) {
  History history;
  for (const auto& record : json.at("epochs")) history.epochs.push_back(record_of(record));
  history.best_epoch = json.at("best_epoch").get<int64_t>();
  history.stopped_early = json.at("stopped_early").get<bool>();
  return history;
}

std::string history_to_json(const History& history) { return json_of(history).dump(2); }

}  // namespace afm
