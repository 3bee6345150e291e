#include "libafm/train/schedule.h"

namespace afm {
namespace {

// Smaller gains are noise: one pair of rows that changes places.
constexpr double kMinimumGain = 1e-6;

bool is_better(const History& history, double auc) {
  if (history.best_epoch == 0) return true;
  return auc > history.epochs[static_cast<std::size_t>(history.best_epoch) - 1].valid_auc + kMinimumGain;
}

}  // namespace

double learning_rate_at(const TrainOptions& options, double current, int64_t step, int64_t total_steps) {
  if (options.schedule != Schedule::kLinear) return current;
  return options.learning_rate * (1.0 - static_cast<double>(step) / static_cast<double>(total_steps));
}

bool add_epoch(History& history, const EpochRecord& record) {
  const bool better = is_better(history, record.valid_auc);
  history.epochs.push_back(record);
  if (better) history.best_epoch = record.epoch;
  return better;
}

bool out_of_patience(const TrainOptions& options, const History& history) {
  return options.patience > 0 && static_cast<int64_t>(history.epochs.size()) - history.best_epoch >= options.patience;
}

}  // namespace afm
