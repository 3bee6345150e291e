#pragma once

// Private: what a run must have in common with the checkpoint that it goes on from.

#include <string_view>

#include <nlohmann/json.hpp>

#include "libafm/data/dataset.h"
#include "libafm/nn/model.h"
#include "libafm/train/trainer.h"

namespace afm {

struct RunIdentity {
  nlohmann::json options;  // those that decide the numbers; the device and the checkpoint's own may change
  nlohmann::json run;      // model, options, ranks, schema, teacher, rows: each a text or a number
};

RunIdentity identity_of(const Model& model, const Dataset& train_set, const Dataset& valid_set,
                        const TrainOptions& options);

// Throws std::invalid_argument for an option that differs, DataError for another model, teacher or dataset. `where`
// names the checkpoint.
void check_same(const RunIdentity& now, const RunIdentity& saved, std::string_view where);

}  // namespace afm
