#pragma once

// The rows of a dataset in batches, shuffled by index. The order is a function of (seed, epoch) alone, so a position is
// enough to go on after an interruption.
//
//   BatchStream stream(train_set, {.batch_size = 4096, .seed = 1});
//   stream.start_epoch(0);
//   while (auto batch = stream.next()) step(*batch);

#include <cstdint>
#include <optional>

#include "libafm/core/fields.h"
#include "libafm/data/dataset.h"

namespace afm {

struct BatchOptions {
  int64_t batch_size = 4096;   // rows, at least 1
  bool shuffle = true;
  bool drop_last = false;      // leave out a last batch that is not full
  int64_t seed = 0;
  bool operator==(const BatchOptions&) const = default;
};

class BatchStream {
 public:
  // The dataset must outlive the stream. Throws std::invalid_argument for a bad option.
  explicit BatchStream(const Dataset& dataset, BatchOptions options = {});

  // Starts (or restarts) an epoch; `batch` > 0 continues in its middle.
  void start_epoch(int64_t epoch, int64_t batch = 0);
  std::optional<Batch> next();              // nullopt at the end of the epoch

  int64_t batches() const;                  // per epoch
  int64_t position() const { return next_; } // batches already taken in this epoch

 private:
  const Dataset* dataset_;
  BatchOptions options_;
  at::Tensor order_;                        // [N] int64, on the dataset's device; undefined without shuffle
  int64_t next_ = 0;
};

}  // namespace afm
