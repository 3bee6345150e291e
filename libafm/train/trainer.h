#pragma once

// Fits a model: Adam (tables: or row-wise Adagrad) on logloss, optional L2 on the tables, optional teachers; validation
// AUC after each epoch, learning rate schedule, early stop, best weights restored; resumable.
//
//   History history = train(*model, train_set, valid_set, {.epochs = 20, .embedding_l2 = 0.05, .seed = 1});

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "libafm/core/fields.h"
#include "libafm/data/dataset.h"
#include "libafm/nn/model.h"

namespace afm {

// kPlateau: times lr_decay after each epoch without a better validation AUC. kLinear: falls linearly to 0 over all
// steps.
enum class Schedule { kConstant, kPlateau, kLinear };
constexpr std::array<std::string_view, 3> enum_names(std::type_identity<Schedule>) {
  return {"constant", "plateau", "linear"};
}

// Of the tables; all other parameters have Adam. kAdam: with dense semantics, so that also rows that a batch does not
// read move on; in a large table they do so when they are next read. kAdagrad: row-wise, on the rows of
// the batch alone: less memory and time, and other results.
enum class OptimizerKind { kAdam, kAdagrad };
constexpr std::array<std::string_view, 2> enum_names(std::type_identity<OptimizerKind>) { return {"adam", "adagrad"}; }

// Of the arithmetic in matrix products on a GPU during training; tables, weights and optimizers stay float32. kTf32:
// products of float32 rounded to 10 bits. kBf16: what the MLP reads is bfloat16, and so all that follows of it.
enum class Precision { kFloat32, kTf32, kBf16 };
constexpr std::array<std::string_view, 3> enum_names(std::type_identity<Precision>) {
  return {"float32", "tf32", "bf16"};
}

// Of the training and validation rows while a model trains on a GPU. kResident: a copy of all rows there. kStreamed:
// they stay where they are (mapped files that the memory of the CPU should hold) and go there batch by batch, ahead of
// their use; the batches are the same. kAuto: resident where they fit.
enum class DataPlace { kAuto, kResident, kStreamed };
constexpr std::array<std::string_view, 3> enum_names(std::type_identity<DataPlace>) {
  return {"auto", "resident", "streamed"};
}

struct TrainOptions {
  int64_t epochs = 50;          // at most; >= 1
  int64_t batch_size = 4096;    // rows; >= 2
  double learning_rate = 1e-3;  // of Adam (beta 0.9, 0.999, eps 1e-8); > 0
  OptimizerKind optimizer = OptimizerKind::kAdam;
  double adagrad_learning_rate = 0.02;  // of kAdagrad; the schedule changes it as it does learning_rate; > 0
  Schedule schedule = Schedule::kPlateau;
  double lr_decay = 0.1;       // of kPlateau; in (0, 1]
  int64_t patience = 2;        // stop after so many epochs in a row without a better AUC; 0 = never stop early
  double embedding_l2 = 0.0;   // penalty (l2 / 2) ||table||^2 over the whole table each step (kAdagrad: over the rows
                               // that the batch reads), wide weights included; >= 0
  double mlp_l2 = 0.0;         // the same on every other weight matrix; >= 0
  int64_t seed = 1;            // order of rows and dropout
  std::string device = "cpu";  // "cpu", "cuda", "cuda:1"; the model is moved there and stays
  Precision precision = Precision::kFloat32;
  // Record one step on a GPU and repeat it, where the model allows it (Model::repeats_itself(), as those of models/
  // do); a step that cannot be recorded is done as without.
  bool cuda_graph = true;
  // On a GPU the gradients of a table's row are added up in the same order each time. False: by atomics, without
  // a sort; it comes to other last bits in each run, and takes longer (benchmarks/RESULTS.md).
  bool deterministic = true;
  DataPlace data = DataPlace::kAuto;
  double distillation = 1.0;  // with teachers: weight a of a KL(teachers || student); >= 0
  double temperature = 1.0;   // of both logits in that term; > 0
  // Added to that weight on the rows where the teachers are on the label's side of the click rate: decisions that were
  // right are kept first (arXiv 2012.01604); >= 0
  double label_preserving = 0.0;
  std::string checkpoint =
      {};  // file to save progress to, at each epoch's end and every checkpoint_seconds; empty = none
  double checkpoint_seconds = 60;  // > 0
  bool resume = false;             // go on from `checkpoint` where it exists

  // Not fields: what cannot be written as text.
  // The mean of their logits is a second target (science.md 5.9); they stay as they are.
  std::vector<std::shared_ptr<Model>> teachers = {};
};

constexpr auto field_list(std::type_identity<TrainOptions>) {
  return std::make_tuple(
      field("epochs", &TrainOptions::epochs, "Epochs at most."),
      field("batch_size", &TrainOptions::batch_size, "Rows per step."),
      field("learning_rate", &TrainOptions::learning_rate, "Learning rate of Adam."),
      field("optimizer", &TrainOptions::optimizer, "Of the tables: adam, or adagrad (row-wise)."),
      field("adagrad_learning_rate", &TrainOptions::adagrad_learning_rate, "Learning rate of row-wise Adagrad."),
      field("schedule", &TrainOptions::schedule,
            "constant, plateau (x lr_decay without a better AUC) or linear (to 0)."),
      field("lr_decay", &TrainOptions::lr_decay, "Factor of the plateau schedule, in (0, 1]."),
      field("patience", &TrainOptions::patience, "Epochs in a row without a better AUC before stopping; 0 = never."),
      field("embedding_l2", &TrainOptions::embedding_l2, "L2 on the whole tables each step: (l2 / 2) ||table||^2."),
      field("mlp_l2", &TrainOptions::mlp_l2, "The same on every other weight matrix."),
      field("seed", &TrainOptions::seed, "Order of rows and dropout."),
      field("device", &TrainOptions::device, "cpu, cuda or cuda:N."),
      field("precision", &TrainOptions::precision, "Of matrix products on a GPU: float32, tf32 or bf16."),
      field("cuda_graph", &TrainOptions::cuda_graph, "Record one step on a GPU and repeat it."),
      field("deterministic", &TrainOptions::deterministic, "On a GPU: sums of row gradients in a fixed order."),
      field("data", &TrainOptions::data, "Rows on a GPU: resident, streamed, or auto (what fits)."),
      field("distillation", &TrainOptions::distillation, "Weight of the teachers' term."),
      field("temperature", &TrainOptions::temperature, "Temperature of the teachers' term."),
      field("label_preserving", &TrainOptions::label_preserving, "More weight of it where the teachers are right."),
      field("checkpoint", &TrainOptions::checkpoint, "File for resumable progress; empty = none."),
      field("checkpoint_seconds", &TrainOptions::checkpoint_seconds, "Seconds between saves within an epoch."),
      field("resume", &TrainOptions::resume, "Go on from the checkpoint where it exists."));
}

struct EpochRecord {
  int64_t epoch = 0;        // from 1
  double train_loss = 0.0;  // mean logloss (plus teacher term) over the epoch's batches, without penalties
  double valid_auc = 0.0, valid_logloss = 0.0;
  double learning_rate = 0.0;  // during the epoch
  double seconds = 0.0;        // training alone
  double rows_per_second = 0.0;
};

struct History {
  std::vector<EpochRecord> epochs;
  int64_t best_epoch = 0;  // whose weights the model has now
  bool stopped_early = false;
};
std::string history_to_json(const History& history);

struct Progress {
  int64_t epoch = 0, epochs = 0;   // epoch from 1
  int64_t batch = 0, batches = 0;  // done in this epoch
  double loss = 0.0;               // mean over the epoch so far; refreshed now and then
  double learning_rate = 0.0;
  double rows_per_second = 0.0;
  const EpochRecord* finished = nullptr;  // set once per epoch, after validation
};
// Called every few batches and after each epoch, on the training thread. Until an epoch is finished, rows of a large
// table that recent batches did not read are behind what the optimizer owes them (until a lookup reads them). May throw
// to stop: the checkpoint on disk stays whole, and the exception passes through.
using ProgressCallback = std::function<void(const Progress&)>;

// Throws std::invalid_argument for a bad option, DataError for data that does not fit the model, Error when a loss, a
// gradient or a weight is NaN or infinite: it names epoch and batch, and on the CPU, before the step is taken, the
// first such row or the parameter. The model keeps its best weights, a checkpoint on disk its last good state.
History train(Model& model, const Dataset& train_set, const Dataset& valid_set, const TrainOptions& options = {},
              const ProgressCallback& on_progress = {});

}  // namespace afm
