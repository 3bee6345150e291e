#include "libafm/train/trainer.h"

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/metrics/metrics.h"
#include "libafm/train/check_options.h"
#include "libafm/train/epoch_loop.h"
#include "libafm/train/memory.h"

namespace afm {
namespace {

void check_data(const Model& model, const Dataset& train_set, const Dataset& valid_set, const TrainOptions& options) {
  check_fits(model.schema(), train_set.schema());
  check_fits(model.schema(), valid_set.schema());
  for (const auto& teacher : options.teachers) check_fits(teacher->schema(), train_set.schema());
  if (train_set.size() < 2) fail<DataError>("the training set must have at least 2 rows, got {}", train_set.size());
  const double rate = valid_set.click_rate();
  if (rate == 0 || rate == 1) {
    fail<DataError>("the validation set must have rows of label 0 and of label 1, got only label {}", rate);
  }
}

}  // namespace

History train(Model& model, const Dataset& train_set, const Dataset& valid_set, const TrainOptions& options,
              const ProgressCallback& on_progress) {
  check_options(options);
  check_data(model, train_set, valid_set, options);
  if (device_of(options.device).is_cpu()) keep_freed_memory();
  return EpochLoop(model, train_set, valid_set, options, on_progress).run();
}

}  // namespace afm
