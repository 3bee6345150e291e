#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>

#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

#include "libafm/core/tensors.h"
#include "libafm/train/trainer.h"
#include "tests/train/planted.h"

using afm::History;
using afm::Schedule;
using afm::TrainOptions;
using afm::testing::fresh_network;
using afm::testing::Network;
using afm::testing::planted_clicks;
using afm::testing::same_bytes;
using afm::testing::ScratchFile;

namespace {

constexpr double kAfterEachBatch = 1e-9, kAfterEpochsOnly = 1e9;

// 4 training batches and 1 validation pass per epoch.
constexpr int64_t kForwardsPerEpoch = 5;

bool same_history(const History& a, const History& b) {
  if (a.epochs.size() != b.epochs.size() || a.best_epoch != b.best_epoch || a.stopped_early != b.stopped_early) {
    return false;
  }
  for (std::size_t i = 0; i < a.epochs.size(); ++i) {
    const auto &x = a.epochs[i], &y = b.epochs[i];
    if (x.epoch != y.epoch || x.train_loss != y.train_loss || x.valid_auc != y.valid_auc ||
        x.valid_logloss != y.valid_logloss || x.learning_rate != y.learning_rate) {
      return false;
    }
  }
  return true;
}

struct Run {
  std::shared_ptr<Network> network = fresh_network();
  History history;
};

class Story {
 public:
  explicit Story(TrainOptions options) : options_(std::move(options)) {}

  Run whole() const {
    Run run;
    run.history = afm::train(*run.network, train_set_, valid_set_, options_);
    return run;
  }

  // Dies in forward number `killed_at` of a process, then starts again, until a process reaches the end.
  Run interrupted(int64_t killed_at, double checkpoint_seconds, int64_t kills) const {
    const ScratchFile file("resume.safetensors");
    auto options = options_;
    options.checkpoint = file.string();
    options.checkpoint_seconds = checkpoint_seconds;
    options.resume = true;
    for (int64_t kill = 0; kill < kills; ++kill) {
      const auto network = fresh_network();
      network->killed_at = killed_at;
      CHECK_THROWS_AS(afm::train(*network, train_set_, valid_set_, options), std::runtime_error);
    }
    Run run;
    run.history = afm::train(*run.network, train_set_, valid_set_, options);
    return run;
  }

 private:
  TrainOptions options_;
  afm::Dataset train_set_ = planted_clicks(400, 1).dataset, valid_set_ = planted_clicks(200, 2).dataset;
};

Story story(Schedule schedule) {
  TrainOptions options{
      .epochs = 3, .batch_size = 110, .learning_rate = 2e-2, .schedule = schedule, .patience = 2, .embedding_l2 = 1e-3};
  if (schedule == Schedule::kLinear) options.teachers = {fresh_network(), fresh_network()};
  return Story(options);
}

}  // namespace

TEST_CASE("killed at any forward and resumed equals never killed, bitwise") {
  const auto schedule = GENERATE(Schedule::kPlateau, Schedule::kLinear);
  const double checkpoint_seconds = GENERATE(kAfterEachBatch, kAfterEpochsOnly);
  const auto tale = story(schedule);
  const Run whole = tale.whole();
  REQUIRE(whole.history.epochs.size() == 3);
  for (int64_t killed_at = 0; killed_at < 3 * kForwardsPerEpoch; ++killed_at) {
    CAPTURE(afm::name_of(schedule), checkpoint_seconds, killed_at);
    const Run resumed = tale.interrupted(killed_at, checkpoint_seconds, 1);
    CHECK(same_bytes(*resumed.network, *whole.network));
    CHECK(same_history(resumed.history, whole.history));
  }
}

TEST_CASE("killed after every second batch and resumed equals never killed") {
  const auto tale = story(Schedule::kPlateau);
  const Run whole = tale.whole(), resumed = tale.interrupted(2, kAfterEachBatch, 6);
  CHECK(same_bytes(*resumed.network, *whole.network));
  CHECK(same_history(resumed.history, whole.history));
}

TEST_CASE("a checkpoint that is wrong in one part gives another model") {
  const auto rows = planted_clicks(400, 1).dataset;
  const ScratchFile file("altered.safetensors");
  TrainOptions options{.epochs = 2, .batch_size = 100, .checkpoint = file.string(), .resume = true};
  const auto half = fresh_network(), whole = fresh_network();
  half->killed_at = 2;
  options.checkpoint_seconds = kAfterEachBatch;
  CHECK_THROWS_AS(afm::train(*half, rows, rows, options), std::runtime_error);
  const auto saved = afm::SafetensorsFile::open(file.path());
  const auto resumed_with = [&](const std::string& name, const at::Tensor& value) {
    auto tensors = afm::read_tensors(saved);
    tensors.at(name).copy_(value);
    afm::save_tensors(file.path(), saved.metadata(), tensors);
    const auto network = fresh_network();
    afm::train(*network, rows, rows, options);
    return network;
  };
  torch::manual_seed(99);
  const auto other_generator = at::detail::getDefaultCPUGenerator().get_state();
  const auto same = afm::read_tensors(saved).at("random/cpu");
  auto plain = options;
  plain.checkpoint.clear();
  plain.resume = false;
  afm::train(*whole, rows, rows, plain);
  CHECK(same_bytes(*resumed_with("random/cpu", same), *whole));
  CHECK_FALSE(same_bytes(*resumed_with("random/cpu", other_generator), *whole));
  for (const char* name : {"optimizer/head.weight.mean", "optimizer/head.weight.square", "optimizer/head.weight.step",
                           "model/norm.running_mean", "model/head.weight"}) {
    CAPTURE(name);
    CHECK_FALSE(same_bytes(*resumed_with(name, torch::full({}, 0.5)), *whole));
  }
}

TEST_CASE("a callback that throws leaves a whole checkpoint to go on from") {
  const auto rows = planted_clicks(400, 1).dataset;
  const ScratchFile file("callback.safetensors");
  TrainOptions options{.epochs = 3, .batch_size = 100, .learning_rate = 2e-2, .patience = 0};
  const auto whole = fresh_network(), stopped = fresh_network(), resumed = fresh_network();
  const auto whole_history = afm::train(*whole, rows, rows, options);
  options.checkpoint = file.string();
  options.resume = true;
  const auto stop = [](const afm::Progress& progress) {
    if (progress.epoch == 2) throw std::runtime_error("stopped");
  };
  CHECK_THROWS_AS(afm::train(*stopped, rows, rows, options, stop), std::runtime_error);
  CHECK(same_history(afm::train(*resumed, rows, rows, options), whole_history));
  CHECK(same_bytes(*resumed, *whole));
}

TEST_CASE("a finished run resumes to its result at once, and may be prolonged") {
  const auto rows = planted_clicks(400, 1).dataset;
  const ScratchFile file("finished.safetensors");
  TrainOptions options{.epochs = 2,
                       .batch_size = 100,
                       .learning_rate = 2e-2,
                       .patience = 0,
                       .checkpoint = file.string(),
                       .resume = true};
  const auto first = fresh_network(), again = fresh_network(), longer = fresh_network(), whole = fresh_network();
  const auto history = afm::train(*first, rows, rows, options);
  again->killed_at = 0;
  CHECK(same_history(afm::train(*again, rows, rows, options), history));
  CHECK(same_bytes(*first, *again));

  options.epochs = 4;
  const auto prolonged = afm::train(*longer, rows, rows, options);
  options.resume = false;
  CHECK(same_history(afm::train(*whole, rows, rows, options), prolonged));
  CHECK(same_bytes(*longer, *whole));
}

TEST_CASE("without resume a run starts anew and replaces the checkpoint") {
  const auto rows = planted_clicks(400, 1).dataset;
  const ScratchFile file("anew.safetensors");
  TrainOptions options{.epochs = 1, .batch_size = 100, .checkpoint = file.string()};
  const auto first = fresh_network(), second = fresh_network();
  afm::train(*first, rows, rows, options);
  CHECK(std::filesystem::exists(file.path()));
  CHECK(afm::train(*second, rows, rows, options).epochs.size() == 1);
  CHECK(same_bytes(*first, *second));
}
