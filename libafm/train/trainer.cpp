#include "libafm/train/trainer.h"

#include <optional>

#include "libafm/train/check_options.h"
#include "libafm/train/epoch_loop.h"
#include "libafm/train/lane.h"
#include "libafm/train/memory.h"

namespace afm {

History train(Model& model, const Dataset& train_set, const Dataset& valid_set, const TrainOptions& options,
              const ProgressCallback& on_progress) {
  check_run(model, train_set, valid_set, options);
  if (device_of(options.device).is_cpu()) keep_freed_memory();
  const Lane lane(device_of(options.device));
  std::optional<EpochLoop> loop;
  {
    const auto turn = lane.turn();
    loop.emplace(model, train_set, valid_set, options, on_progress, lane);
  }
  return loop->run();
}

}  // namespace afm
