#pragma once

// Private: where the training rows are while a model trains.

#include <c10/core/Device.h>

#include "libafm/data/dataset.h"
#include "libafm/nn/model.h"
#include "libafm/train/trainer.h"

namespace afm {

// Whether they stay on the CPU and go to `device` batch by batch. DataPlace::kAuto: where they do not fit there beside
// the model, what training keeps for it, and some room for a step. Throws std::invalid_argument for
// DataPlace::kStreamed with rows that are on a GPU already.
bool streams_rows(const TrainOptions& options, const Model& model, const Dataset& train_set, at::Device device);

}  // namespace afm
