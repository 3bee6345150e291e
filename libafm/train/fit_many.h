#pragma once

// Fits many models at once on one device: seeds or settings of one model, for tuning and for honest spreads.
//
//   std::vector<TrainOptions> options(4);
//   for (int64_t seed = 1; seed <= 4; ++seed) options[seed - 1].seed = seed;
//   std::vector<History> histories = fit_many(models, train_set, valid_set, options);
//
// On a GPU every model has a stream of its own, and the steps of small models fill what a single one leaves idle (a
// recorded step costs the host one launch). On the CPU the models share LibTorch's threads: each of
// as many as there are threads has one to itself.

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "libafm/train/trainer.h"

namespace afm {

// train()'s callback with the place of its model. Called on the calling thread, one at a time; the model stands still
// meanwhile, the others go on.
using ManyProgressCallback = std::function<void(int64_t model, const Progress&)>;

// history i and model i are those of train(*models[i], train_set, valid_set, options[i]): bit for bit where that is
// deterministic, given as many threads as a model has here, and given that models draw random numbers only through our
// layers (dropout of nn::Mlp).
// Datasets are copied to the device once; DataPlace::kStreamed is refused there. `at_once`: models under training at a
// time; 0: on a GPU 32, on the CPU one per thread.
//
// The first error stops all of them and is thrown as train() throws it, its text led by the place of the model,
// "models[2]: "; every model then has the best weights so far (or as given), and checkpoints stay whole, so that
// TrainOptions::resume goes on with each. Throws std::invalid_argument also for another number of options than of
// models, for models that share parameters or are teachers of each other, for two devices and for a checkpoint file
// that two models have in common.
std::vector<History> fit_many(const std::vector<std::shared_ptr<Model>>& models, const Dataset& train_set,
                              const Dataset& valid_set, const std::vector<TrainOptions>& options,
                              const ManyProgressCallback& on_progress = {}, int64_t at_once = 0);

}  // namespace afm
