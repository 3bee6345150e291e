#include "libafm/train/epoch_loop.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include <torch/types.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/nn/model_file.h"
#include "libafm/train/check_options.h"
#include "libafm/train/data_place.h"
#include "libafm/train/finite_check.h"
#include "libafm/train/fused.h"
#include "libafm/train/loss.h"
#include "libafm/train/make_optimizer.h"
#include "libafm/train/precision_scope.h"
#include "libafm/train/random_state.h"
#include "libafm/train/schedule.h"
#include "libafm/train/teachers.h"

namespace afm {
namespace {

constexpr int64_t kBatchesPerLossCheck = 50;
constexpr double kSecondsPerReport = 0.1;

class TrainingMode {
 public:
  explicit TrainingMode(torch::nn::Module& module) : module_(module), was_training_(module.is_training()) {
    module_.train();
  }
  ~TrainingMode() { module_.train(was_training_); }
  TrainingMode(const TrainingMode&) = delete;
  TrainingMode& operator=(const TrainingMode&) = delete;

 private:
  torch::nn::Module& module_;
  bool was_training_;
};

Dataset on_device(const Dataset& dataset, at::Device device) {
  return dataset.device() == device ? dataset : dataset.to(device);
}

Model& moved(Model& model, at::Device device) {
  model.to(device);
  return model;
}

// Batch norm has no variance of one row: a last batch of one is left out.
BatchOptions batch_options(const TrainOptions& options, int64_t rows) {
  return {.batch_size = options.batch_size,
          .shuffle = true,
          .drop_last = rows > options.batch_size && rows % options.batch_size == 1,
          .seed = options.seed};
}

}  // namespace

EpochLoop::EpochLoop(Model& model, const Dataset& train_set, const Dataset& valid_set, const TrainOptions& options,
                     const ProgressCallback& on_progress, const Lane& lane)
    : model_(model),
      options_(options),
      on_progress_(on_progress),
      lane_(lane),
      device_(device_of(options.device)),
      streams_rows_(streams_rows(options, model, train_set, device_)),
      train_set_(streams_rows_ ? train_set : on_device(train_set, device_)),
      valid_set_(streams_rows_ ? valid_set : on_device(valid_set, device_)),
      teacher_logits_(logits_of_teachers(options, train_set_, device_)),
      click_rate_(options.teachers.empty() ? 0.0 : train_set_.click_rate()),
      identity_(identity_of(model, train_set, valid_set, options)),
      stream_(train_set_, batch_options(options, train_set.size()), device_),
      optimizer_(make_optimizer(moved(model, device_), options)),
      loss_sum_(at::zeros({}, at::TensorOptions(device_).dtype(at::kDouble))),
      finite_batches_(at::zeros({}, at::TensorOptions(device_).dtype(at::kLong))) {
  const bool resumes = options_.resume && std::filesystem::exists(options_.checkpoint);
  if (!resumes) stream_.prepare(0);
  if (streams_rows_) streamed_ = std::make_unique<StreamedBatches>(train_set_, device_, options.batch_size);
  if (device_.is_cuda() && !streams_rows_) resident_ = train_set_.range(0, train_set_.size());
  if (options.cuda_graph && model.repeats_itself() && device_.is_cuda()) record_steps();
  position_.learning_rate = options.learning_rate;
  seed_random(options.seed, device_);
  keep_best();
  if (resumes) restore();
}

History EpochLoop::run() {
  try {
    run_epochs();
  } catch (...) {
    take_best();
    throw;
  }
  take_best();
  position_.history.stopped_early = epochs_done() < options_.epochs;
  return position_.history;
}

void EpochLoop::run_epochs() {
  const torch::AutoGradMode enable_grad(true);
  const TrainingMode training(model_);
  const TrustedIds trusted(model_);
  report_watch_.resume();
  save_watch_.resume();
  while (epochs_done() < options_.epochs && !out_of_patience(options_, position_.history)) {
    run_batches();
    end_epoch(validated(loss_));
  }
}

void EpochLoop::run_batches() {
  const FeatureTypeScope feature_type(model_, options_.precision);
  checked_ = position_.batch;
  stream_.start_epoch(epochs_done(), position_.batch);
  if (epochs_done() + 1 < options_.epochs) stream_.prepare(epochs_done() + 1);
  epoch_watch_ = Stopwatch(position_.seconds);
  epoch_watch_.resume();
  if (streamed_) streamed_->start(stream_.order().cpu());
  while (stream_.advance()) {
    step();
    ++position_.batch;
    if (position_.batch % optimizer_->steps_before_flush() == 0) optimizer_->flush();
    const bool report_now = on_progress_ && report_watch_.seconds() >= kSecondsPerReport;
    const bool save_now = !options_.checkpoint.empty() && save_watch_.seconds() >= options_.checkpoint_seconds;
    if (report_now || save_now || position_.batch - checked_ >= kBatchesPerLossCheck) check_loss();
    if (save_now) {
      check_weights("in");
      save();
    }
    if (report_now) report();
  }
  optimizer_->flush();
  check_loss();
  epoch_watch_.pause();
}

void EpochLoop::record_steps() {
  const auto on_device = at::TensorOptions(device_);
  rate_ = at::empty({1}, on_device.dtype(at::kFloat));
  index_ = at::empty({options_.batch_size}, on_device.dtype(at::kLong));
  if (optimizer_->read_rate_from(rate_)) {
    graphed_ = GraphedStep::make(device_);
  }
  if (!graphed_) optimizer_->read_rate_from({});
}

void EpochLoop::step() {
  const at::Tensor& index = stream_.index();
  const double rate = learning_rate_of(position_.batch);
  if (streamed_) batch_ = streamed_->next();
  if (graphed_ && std::exchange(rate_now_, rate) != rate) rate_.fill_(rate);
  const bool repeats = graphed_ && index.size(0) == options_.batch_size;
  if (repeats) index_.copy_(index);
  if (repeats && graphed_->is_recorded()) return graphed_->replay();
  const auto turn = lane_.turn(options_.precision == Precision::kTf32);
  repeats ? graphed_->run(model_, [&] { train_on(index_, rate); }) : train_on(index, rate);
}

Batch EpochLoop::rows_of(const at::Tensor& index) const {
  if (streamed_) return batch_;
  const auto gathered = resident_.ids.defined() ? fused_gather(resident_, index) : std::nullopt;
  return gathered ? *gathered : stream_.gather(index);
}

void EpochLoop::train_on(const at::Tensor& index, double learning_rate) {
  const Batch batch = rows_of(index);
  optimizer_->zero_grad();
  const at::Tensor logits = model_.forward(batch);
  check_logits(model_, logits, batch.rows());
  at::Tensor loss = logloss_of(logits, batch.label);
  if (teacher_logits_.defined()) {
    const at::Tensor targets = teacher_logits_.index_select(0, index);
    loss = loss + teaching_loss(options_, logits, targets, batch.label, click_rate_);
  }
  if (device_.is_cpu()) check_batch_loss(loss, logits, index);
  loss.backward();
  if (device_.is_cpu()) check_gradients();
  optimizer_->step(learning_rate);
  const torch::NoGradGuard no_grad;
  if (fused_loss_sum(loss.detach(), batch.rows(), loss_sum_, finite_batches_)) return;
  loss_sum_.add_(loss.detach(), batch.rows());
  if (device_.is_cuda()) finite_batches_.add_(loss_sum_.le(std::numeric_limits<double>::max()));
}

void EpochLoop::check_batch_loss(const at::Tensor& loss, const at::Tensor& logits, const at::Tensor& index) const {
  const double value = loss.item<double>();
  if (!std::isfinite(value)) fail_at(position_.batch + 1, value, lost_rows(logits, index));
}

void EpochLoop::check_gradients() const {
  const std::string name = optimizer_->parameter_without_finite_gradient();
  if (name.empty()) return;
  fail<Error>(
      "the gradient of '{}' is not finite, or its square is not, in epoch {}, batch {}; lower "
      "TrainOptions.learning_rate",
      name, epochs_done() + 1, position_.batch + 1);
}

void EpochLoop::fail_at(int64_t batch, double loss, const std::string& why) const {
  fail<Error>("the training loss became {} in epoch {}, batch {}{}; lower TrainOptions.learning_rate", loss,
              epochs_done() + 1, batch, why);
}

int64_t EpochLoop::rows_done() const { return std::min(position_.batch * options_.batch_size, train_set_.size()); }

double EpochLoop::learning_rate_of(int64_t batch) const {
  const int64_t batches = stream_.batches();
  return learning_rate_at(options_, position_.learning_rate, epochs_done() * batches + batch,
                          options_.epochs * batches);
}

// NaN and infinity stay in a sum, so one look tells of all batches since the last.
void EpochLoop::check_loss() {
  loss_ = loss_sum_.item<double>() / static_cast<double>(rows_done());
  if (!std::isfinite(loss_)) fail_at(checked_ + finite_batches_.item<int64_t>() + 1, loss_, {});
  finite_batches_.zero_();
  checked_ = position_.batch;
}

void EpochLoop::check_weights(const char* when) const {
  const std::string name = lost_tensor(model_);
  if (name.empty()) return;
  fail<Error>("'{}' is not finite {} epoch {}; lower TrainOptions.learning_rate", name, when, epochs_done() + 1);
}

Scores EpochLoop::scored() {
  const auto turn = lane_.turn();
  return score(model_, valid_set_, {});
}

EpochRecord EpochLoop::validated(double train_loss) {
  check_weights("after");
  const std::optional<Quality> quality = quality_of(scored());
  if (!quality) {
    fail<Error>("the validation logits after epoch {} are not finite; lower TrainOptions.learning_rate",
                epochs_done() + 1);
  }
  const double seconds = epoch_watch_.seconds();
  return {.epoch = epochs_done() + 1,
          .train_loss = train_loss,
          .valid_auc = quality->auc,
          .valid_logloss = quality->logloss,
          .learning_rate = learning_rate_of(0),
          .seconds = seconds,
          .rows_per_second = static_cast<double>(rows_done()) / std::max(seconds, 1e-9)};
}

void EpochLoop::end_epoch(EpochRecord record) {
  if (add_epoch(position_.history, record)) {
    keep_best();
  } else if (options_.schedule == Schedule::kPlateau) {
    position_.learning_rate *= options_.lr_decay;
  }
  const int64_t batches = std::exchange(position_.batch, 0);
  position_.seconds = 0.0;
  loss_sum_.zero_();
  if (!options_.checkpoint.empty()) save();
  if (!on_progress_) return;
  on_progress_({.epoch = record.epoch,
                .epochs = options_.epochs,
                .batch = batches,
                .batches = stream_.batches(),
                .loss = record.train_loss,
                .learning_rate = record.learning_rate,
                .rows_per_second = record.rows_per_second,
                .finished = &record});
}

void EpochLoop::report() {
  report_watch_ = Stopwatch();
  report_watch_.resume();
  on_progress_({.epoch = epochs_done() + 1,
                .epochs = options_.epochs,
                .batch = position_.batch,
                .batches = stream_.batches(),
                .loss = loss_,
                .learning_rate = learning_rate_of(position_.batch - 1),
                .rows_per_second = static_cast<double>(rows_done()) / std::max(epoch_watch_.seconds(), 1e-9)});
}

void EpochLoop::save() {
  const auto turn = lane_.turn();
  epoch_watch_.pause();
  position_.seconds = position_.batch == 0 ? 0.0 : epoch_watch_.seconds();
  save_checkpoint(options_.checkpoint, identity_,
                  {.position = position_,
                   .model = state_of(model_),
                   .best = best_,
                   .optimizer = optimizer_->state(),
                   .random = random_state(device_),
                   .loss_sum = loss_sum_});
  save_watch_ = Stopwatch();
  save_watch_.resume();
  epoch_watch_.resume();
}

void EpochLoop::restore() {
  const TensorMap start = std::exchange(best_, {});
  try {
    take_over(read_checkpoint(options_.checkpoint, identity_));
  } catch (...) {
    load_state(model_, start, "the start");
    throw;
  }
}

// The best weights pass through the model, which checks their names and shapes.
void EpochLoop::take_over(const Checkpoint& checkpoint) {
  const std::string where = fmt::format("checkpoint '{}'", options_.checkpoint);
  if (checkpoint.position.batch > stream_.batches()) {
    fail<FormatError>("{} has done {} batches of an epoch of {}", where, checkpoint.position.batch, stream_.batches());
  }
  load_state(model_, checkpoint.best, where);
  keep_best();
  load_state(model_, checkpoint.model, where);
  optimizer_->load_state(checkpoint.optimizer, where);
  set_random_state(checkpoint.random, device_, where);
  loss_sum_.copy_(checkpoint.loss_sum);
  position_ = checkpoint.position;
}

void EpochLoop::keep_best() {
  const torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : state_of(model_)) {
    auto& kept = best_[name];
    kept.defined() ? kept.copy_(tensor) : kept = tensor.clone();
  }
}

void EpochLoop::take_best() {
  load_state(model_, best_, "the best epoch");
  for (auto& parameter : model_.parameters()) parameter.mutable_grad() = at::Tensor();
}

}  // namespace afm
