#include <memory>
#include <stdexcept>

#include <torch/cuda.h>
#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include "libafm/metrics/metrics.h"
#include "libafm/train/trainer.h"
#include "tests/train/planted.h"

using afm::TrainOptions;
using afm::testing::fresh_network;
using afm::testing::Logistic;
using afm::testing::planted_clicks;
using afm::testing::ScratchFile;
using Catch::Matchers::WithinAbs;

namespace {

// Sums of a GPU come in another order than those of the CPU; over some hundred steps that moves an AUC by far less.
constexpr double kTolerance = 2e-3;

void need_gpu() {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
}

}  // namespace

TEST_CASE("a GPU learns what the CPU learns, with a teacher, and the model stays there", "[cuda]") {
  need_gpu();
  const auto train_set = planted_clicks(10000, 1).dataset, valid_set = planted_clicks(5000, 2).dataset;
  const auto trained_on = [&](const char* device) {
    torch::manual_seed(1);
    auto model = std::make_shared<Logistic>();
    afm::train(*model, train_set, valid_set,
               {.epochs = 4,
                .batch_size = 500,
                .learning_rate = 2e-2,
                .embedding_l2 = 1e-5,
                .device = device,
                .teachers = {std::make_shared<Logistic>()}});
    return model;
  };
  const auto cpu = trained_on("cpu"), gpu = trained_on("cuda");
  CHECK(gpu->device() == at::Device(at::kCUDA, 0));
  CHECK(gpu->embedding->check_ids);
  const auto on_cpu = afm::evaluate(*cpu, valid_set), on_gpu = afm::evaluate(*gpu, valid_set);
  CHECK(on_cpu.auc > 0.7);
  CHECK_THAT(on_gpu.auc, WithinAbs(on_cpu.auc, kTolerance));
  CHECK_THAT(on_gpu.logloss, WithinAbs(on_cpu.logloss, kTolerance));
}

TEST_CASE("the step of a model that may do other work for each batch is not recorded", "[cuda]") {
  need_gpu();
  struct Counting : Logistic {
    int calls = 0;
    at::Tensor forward(const afm::Batch& batch) override {
      calls += is_training() ? 1 : 0;
      return Logistic::forward(batch);
    }
  };
  struct Repeating : Counting {
    bool repeats_itself() const override { return true; }
  };
  const auto rows = planted_clicks(2000, 1).dataset;
  const TrainOptions options{.epochs = 2, .batch_size = 100, .patience = 0, .device = "cuda"};
  const auto other = std::make_shared<Counting>();
  const auto same = std::make_shared<Repeating>();
  afm::train(*other, rows, rows, options);
  afm::train(*same, rows, rows, options);
  CHECK(other->calls == 40);
  CHECK(same->calls < 10);
}

TEST_CASE("AUC and logloss on a GPU equal those on the CPU", "[cuda]") {
  need_gpu();
  torch::manual_seed(1);
  const auto logits = torch::randint(50, {20000}).to(torch::kFloat32) / 10 - 2;
  const auto labels = (torch::rand({20000}) < torch::sigmoid(logits)).to(torch::kFloat32);
  CHECK(afm::auc(logits.cuda(), labels) == afm::auc(logits, labels));
  CHECK_THAT(afm::logloss(logits.cuda(), labels.cuda()), WithinAbs(afm::logloss(logits, labels), 1e-12));
}

TEST_CASE("killed and resumed on a GPU goes on with the same dropout", "[cuda]") {
  need_gpu();
  const auto rows = planted_clicks(2000, 1).dataset;
  const ScratchFile file("cuda.safetensors");
  TrainOptions options{.epochs = 3, .batch_size = 200, .learning_rate = 1e-2, .patience = 0, .device = "cuda"};
  const auto whole = fresh_network(), killed = fresh_network(), resumed = fresh_network();
  const auto expected = afm::train(*whole, rows, rows, options);
  options.checkpoint = file.string();
  options.checkpoint_seconds = 1e-9;
  options.resume = true;
  killed->killed_at = 15;
  CHECK_THROWS_AS(afm::train(*killed, rows, rows, options), std::runtime_error);
  const auto history = afm::train(*resumed, rows, rows, options);
  REQUIRE(history.epochs.size() == expected.epochs.size());
  for (std::size_t i = 0; i < history.epochs.size(); ++i) {
    // Other dropout would show in the loss. The AUC is not compared: sums by atomics differ between any two runs, and
    // Adam blows that up in rows that are seldom touched.
    CHECK_THAT(history.epochs[i].train_loss, WithinAbs(expected.epochs[i].train_loss, 1e-4));
  }
}

TEST_CASE("a run that began on the CPU goes on on a GPU", "[cuda]") {
  need_gpu();
  const auto rows = planted_clicks(2000, 1).dataset;
  const ScratchFile file("moved.safetensors");
  TrainOptions options{.epochs = 1, .batch_size = 200, .learning_rate = 1e-2, .checkpoint = file.string()};
  afm::train(*fresh_network(), rows, rows, options);
  options.epochs = 2;
  options.device = "cuda";
  options.resume = true;
  CHECK(afm::train(*fresh_network(), rows, rows, options).epochs.size() == 2);
}
