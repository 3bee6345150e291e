#pragma once

// Private: one run of train(), its options checked.

#include <cstdint>
#include <memory>
#include <string>

#include "libafm/core/tensors.h"
#include "libafm/data/batch_stream.h"
#include "libafm/data/streamed_batches.h"
#include "libafm/metrics/scores.h"
#include "libafm/train/checkpoint.h"
#include "libafm/train/graphed_step.h"
#include "libafm/train/lane.h"
#include "libafm/train/optimizer.h"
#include "libafm/train/stopwatch.h"
#include "libafm/train/trainer.h"

namespace afm {

class EpochLoop {
 public:
  // Moves the model, and copies of the datasets where they live elsewhere. Goes on from the checkpoint where asked.
  // To be constructed within a turn of `lane`.
  EpochLoop(Model& model, const Dataset& train_set, const Dataset& valid_set, const TrainOptions& options,
            const ProgressCallback& on_progress, const Lane& lane);
  EpochLoop(const EpochLoop&) = delete;
  EpochLoop& operator=(const EpochLoop&) = delete;

  // However it ends, the model has its best weights then.
  History run();

 private:
  void run_epochs();
  void run_batches();
  void step();
  Batch rows_of(const at::Tensor& index) const;
  void train_on(const at::Tensor& index, double learning_rate);
  void record_steps();
  void check_batch_loss(const at::Tensor& loss, const at::Tensor& logits, const at::Tensor& index) const;
  void check_gradients() const;
  [[noreturn]] void fail_at(int64_t batch, double loss, const std::string& why) const;
  void check_loss();
  void check_weights(const char* when) const;  // "in" or "after" the epoch
  Scores scored();                             // on the validation set
  EpochRecord validated(double train_loss);
  void end_epoch(EpochRecord record);
  void report();
  void save();
  void restore();
  void take_over(const Checkpoint& checkpoint);
  void keep_best();
  void take_best();

  int64_t epochs_done() const { return static_cast<int64_t>(position_.history.epochs.size()); }
  int64_t rows_done() const;  // in the epoch under way
  double learning_rate_of(int64_t batch) const;

  Model& model_;
  const TrainOptions& options_;
  const ProgressCallback& on_progress_;
  const Lane& lane_;
  at::Device device_;
  bool streams_rows_;
  Dataset train_set_, valid_set_;
  at::Tensor teacher_logits_;  // [N]; undefined without teachers
  double click_rate_;          // of the training set; 0 without teachers
  RunIdentity identity_;
  BatchStream stream_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<StreamedBatches> streamed_;  // null: the rows are on the device
  Batch batch_;                                // of `streamed_`, at the same place each time
  Batch resident_;                             // all rows, on a GPU
  std::unique_ptr<GraphedStep> graphed_;       // null: every step is launched anew
  at::Tensor rate_, index_;                    // what a recorded step reads: [1] learning rate, [batch_size] rows
  double rate_now_ = -1.0;                     // in `rate_`
  RunPosition position_;
  TensorMap best_;
  at::Tensor loss_sum_;        // on the device: reading it each batch would make a GPU wait
  at::Tensor finite_batches_;  // of a GPU: batches since `checked_` before the first whose loss is not finite
  int64_t checked_ = 0;        // batches of the epoch whose loss is known to be finite
  double loss_ = 0.0;          // mean over them
  Stopwatch epoch_watch_, report_watch_, save_watch_;
};

}  // namespace afm
