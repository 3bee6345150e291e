#pragma once

// Private: everything that a run needs to go on as if it had never stopped, in one safetensors file.
//   model/<path>  best/<path>       weights and buffers, current and of the best epoch
//   optimizer/<name>.mean ...       Adam
//   random/cpu  random/cuda         generators
//   loss_sum                        of the epoch under way
// metadata: kind "afm-checkpoint", version, options, run (RunIdentity), position.

#include <cstdint>
#include <filesystem>

#include "libafm/core/tensors.h"
#include "libafm/train/run_identity.h"
#include "libafm/train/trainer.h"

namespace afm {

// Where a run stands.
struct RunPosition {
  History history;             // of the epochs done
  int64_t batch = 0;           // batches done in the epoch under way
  double learning_rate = 0.0;  // what the plateau schedule has come to
  double seconds = 0.0;        // of training in the epoch under way
};

struct Checkpoint {
  RunPosition position;
  TensorMap model, best, optimizer, random;
  at::Tensor loss_sum;  // scalar, float64: sum over rows
};

void save_checkpoint(const std::filesystem::path& path, const RunIdentity& identity, const Checkpoint& checkpoint);

// Throws FormatError for a damaged or foreign file, and what check_same() throws.
Checkpoint read_checkpoint(const std::filesystem::path& path, const RunIdentity& identity);

}  // namespace afm
