#include <optional>

#include "libafm/train/fit_many.h"
#include "libafm/train/loss.h"
#include "libafm/train/trainer.h"
#include "python/src/arguments.h"
#include "python/src/bind_options.h"
#include "python/src/bind_record.h"
#include "python/src/bindings.h"

namespace afm::python {
namespace {

// Progress with its record by value: Python may keep it.
struct KeptProgress {
  int64_t epoch, epochs, batch, batches;
  double loss, learning_rate, rows_per_second;
  std::optional<EpochRecord> finished;
};

KeptProgress kept(const Progress& p) {
  return {p.epoch, p.epochs,        p.batch,           p.batches,
          p.loss,  p.learning_rate, p.rows_per_second, p.finished ? std::optional(*p.finished) : std::nullopt};
}

// Ctrl-C works with or without a callback: KeyboardInterrupt passes through train().
ProgressCallback callback_of(const py::object& on_progress) {
  return [&on_progress](const Progress& progress) {
    const py::gil_scoped_acquire lock;
    check_signals();
    if (!on_progress.is_none()) on_progress(kept(progress));
  };
}

ManyProgressCallback many_callback_of(const py::object& on_progress) {
  return [&on_progress](int64_t model, const Progress& progress) {
    const py::gil_scoped_acquire lock;
    check_signals();
    if (!on_progress.is_none()) on_progress(model, kept(progress));
  };
}

void bind_records(py::module_& m) {
  bind_record<EpochRecord>(m, "EpochRecord", R"(What one epoch of training gave.

epoch counts from 1; train_loss is the mean logloss (plus teacher term) over its batches, without penalties;
valid_auc and valid_logloss come after it; learning_rate is that during it; seconds and rows_per_second are of
training alone.)",
                           entry("epoch", &EpochRecord::epoch), entry("train_loss", &EpochRecord::train_loss),
                           entry("valid_auc", &EpochRecord::valid_auc),
                           entry("valid_logloss", &EpochRecord::valid_logloss),
                           entry("learning_rate", &EpochRecord::learning_rate), entry("seconds", &EpochRecord::seconds),
                           entry("rows_per_second", &EpochRecord::rows_per_second));
  bind_record<History>(m, "History", R"(The epochs of a training; the model has the weights of `best_epoch`.

epochs has an EpochRecord each; best_epoch counts from 1, as EpochRecord.epoch does: epochs[best_epoch - 1].)",
                       entry("epochs", &History::epochs), entry("best_epoch", &History::best_epoch),
                       entry("stopped_early", &History::stopped_early))
      .def("to_json", &history_to_json);
  bind_record<KeptProgress>(m, "Progress", R"(Where a training is; `finished` is set once per epoch.

epoch counts from 1 to epochs; batch is how many of the epoch's batches are done; loss is the mean over the epoch so
far, refreshed now and then; finished is None, or after validation the EpochRecord of the epoch.)",
                            entry("epoch", &KeptProgress::epoch), entry("epochs", &KeptProgress::epochs),
                            entry("batch", &KeptProgress::batch), entry("batches", &KeptProgress::batches),
                            entry("loss", &KeptProgress::loss), entry("learning_rate", &KeptProgress::learning_rate),
                            entry("rows_per_second", &KeptProgress::rows_per_second),
                            entry("finished", &KeptProgress::finished));
}

}  // namespace

void bind_train(py::module_& m) {
  bind_options<TrainOptions>(m, "TrainOptions", "How train() fits a model.");
  bind_records(m);
  m.def(
      "train",
      [](Model& model, const Dataset& train_set, const Dataset& valid_set, const TrainOptions& options,
         std::vector<std::shared_ptr<Model>> teachers, const py::object& on_progress) {
        TrainOptions wanted = options;
        wanted.teachers = std::move(teachers);
        const auto callback = callback_of(on_progress);
        const py::gil_scoped_release unlocked;
        return train(model, train_set, valid_set, wanted, callback);
      },
      "model"_a, "train_set"_a, "valid_set"_a, "options"_a, "teachers"_a, "on_progress"_a);
  m.def(
      "fit_many",
      [](const std::vector<std::shared_ptr<Model>>& models, const Dataset& train_set, const Dataset& valid_set,
         std::vector<TrainOptions> options, const std::vector<std::shared_ptr<Model>>& teachers,
         const py::object& on_progress, int64_t at_once) {
        for (TrainOptions& own : options) own.teachers = teachers;
        const auto callback = many_callback_of(on_progress);
        const py::gil_scoped_release unlocked;
        return fit_many(models, train_set, valid_set, options, callback, at_once);
      },
      "models"_a, "train_set"_a, "valid_set"_a, "options"_a, "teachers"_a, "on_progress"_a, "at_once"_a);
  m.def("logloss_of", &logloss_of, "logits"_a, "labels"_a, ReleaseGil(),
        "Mean of softplus(s) - t s, with gradient: logits [B], labels [B] -> scalar.");
  m.def(
      "distillation_loss",
      [](const at::Tensor& student, const at::Tensor& teacher, double temperature,
         const std::optional<at::Tensor>& weights) {
        return distillation_loss(student, teacher, temperature, weights.value_or(at::Tensor()));
      },
      "student"_a, "teacher"_a, "temperature"_a = 1.0, "weights"_a = py::none(), ReleaseGil(),
      "T^2 times the mean KL divergence of the student's from the teacher's probabilities: logits [B], weights [B].");
}

}  // namespace afm::python
