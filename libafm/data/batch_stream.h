#pragma once

// The rows of a dataset in batches, shuffled by index. The order is a function of (seed, epoch) alone, so a position is
// enough to go on after an interruption.
//
//   BatchStream stream(train_set, {.batch_size = 4096, .seed = 1});
//   stream.start_epoch(0);
//   while (auto batch = stream.next()) step(*batch);

#include <cstdint>
#include <future>
#include <optional>
#include <tuple>
#include <type_traits>

#include "libafm/core/fields.h"
#include "libafm/data/dataset.h"

namespace afm {

struct BatchOptions {
  int64_t batch_size = 4096;  // rows, at least 1
  bool shuffle = true;
  bool drop_last = false;  // leave out a last batch that is not full
  int64_t seed = 0;
  bool operator==(const BatchOptions&) const = default;
};

constexpr auto field_list(std::type_identity<BatchOptions>) {
  return std::make_tuple(field("batch_size", &BatchOptions::batch_size, "Rows of a batch, at least 1."),
                         field("shuffle", &BatchOptions::shuffle, "Visit the rows in a new order each epoch."),
                         field("drop_last", &BatchOptions::drop_last, "Leave out a last batch that is not full."),
                         field("seed", &BatchOptions::seed, "Seed of the order."));
}

class BatchStream {
 public:
  // The dataset must outlive the stream. Starts at epoch 0. Throws std::invalid_argument for a bad option, and for one
  // that leaves no batch (drop_last with fewer rows than a batch).
  explicit BatchStream(const Dataset& dataset, BatchOptions options = {});
  // The order is drawn, and index() lies, on `device`: as for a copy of the dataset there. For who gathers the rows
  // itself (order()).
  BatchStream(const Dataset& dataset, BatchOptions options, at::Device device);

  // Starts (or restarts) an epoch; `batch` > 0 continues in its middle. Throws std::invalid_argument unless epoch >= 0
  // and 0 <= batch <= batches().
  void start_epoch(int64_t epoch, int64_t batch = 0);
  // Draws the order of few rows on a thread of its own, so that start_epoch() of that epoch finds it: the CPU needs as
  // long for it as a GPU for some of the steps. Of many rows: nothing.
  void prepare(int64_t epoch);
  std::optional<Batch> next();  // nullopt at the end of the epoch
  // next() in two halves: the first moves index() on, false at the end; the second gathers any rows without a check.
  bool advance();
  Batch gather(const at::Tensor& index) const { return dataset_->gather(index); }

  int64_t batches() const;                    // per epoch
  int64_t position() const { return next_; }  // batches already taken in this epoch
  // [B] int64: the rows of the batch that next() gave last, on the device of the order.
  const at::Tensor& index() const { return index_; }
  at::Tensor order();  // [rows of batches that the epoch has left] int64, on the device of the order

 private:
  struct Ahead {
    int64_t epoch = 0;
    std::future<at::Tensor> order;  // on the CPU; not valid: none
  };

  uint64_t seed_of(int64_t epoch) const;
  at::Tensor visited(int64_t begin, int64_t end);  // rows, by their place in the epoch

  const Dataset* dataset_;
  BatchOptions options_;
  at::Device device_;  // of the order
  at::Tensor order_;   // [N] int64; undefined until it is needed
  at::Tensor index_;   // set by next()
  Ahead ahead_;
  int64_t epoch_ = 0;
  int64_t next_ = 0;
};

}  // namespace afm
