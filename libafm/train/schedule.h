#pragma once

// Private: what follows from the validation AUCs so far.

#include <cstdint>

#include "libafm/train/trainer.h"

namespace afm {

// Learning rate of a step. `current`: what kPlateau has come to; step: from 0, of total_steps in all epochs.
double learning_rate_at(const TrainOptions& options, double current, int64_t step, int64_t total_steps);

// Appends an epoch. Returns true when it is the best so far (by more than 1e-6 in AUC).
bool add_epoch(History& history, const EpochRecord& record);

// Whether as many epochs in a row as `patience` allows brought no better AUC.
bool out_of_patience(const TrainOptions& options, const History& history);

}  // namespace afm
