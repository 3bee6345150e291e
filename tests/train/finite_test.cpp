#include <array>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <torch/cuda.h>
#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "libafm/core/error.h"
#include "libafm/data/batch_stream.h"
#include "libafm/train/make_optimizer.h"
#include "libafm/train/trainer.h"
#include "tests/train/planted.h"

using afm::testing::Logistic;
using afm::testing::planted_clicks;
using afm::testing::same_bytes;
using afm::testing::ScratchFile;
using Catch::Matchers::Message;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// A GPU too where there is one.
std::string some_device() {
  std::vector<std::string> devices = {"cpu"};
  if (torch::cuda::is_available()) devices.emplace_back("cuda");
  return GENERATE_COPY(from_range(devices));
}

// From training forward number `good` on something is not finite: a logit of one row, or only the gradient of `bias`.
class Failing : public Logistic {
 public:
  enum class What { kLogit, kGradient };
  Failing(int64_t good, What what) : good_(good), what_(what) {}
  at::Tensor forward(const afm::Batch& batch) override {
    const at::Tensor logits = Logistic::forward(batch);
    if (!is_training() || good_-- > 0) return logits;
    if (what_ == What::kGradient) return logits + (bias * 0).square().sqrt();  // the slope of a root at 0 times 0
    at::Tensor row = torch::zeros_like(logits);
    row[2] = kNan;
    return logits + row;
  }

 private:
  int64_t good_;
  What what_;
};

// The gradients of the rows that a batch reads of its table are not finite, its logits are.
class LostRows : public afm::Model {
 public:
  explicit LostRows(int64_t users) : Model(schema_of(users)) {
    embedding = register_module("embedding", afm::nn::Embedding(afm::nn::EmbeddingOptions{
                                                 .cardinalities = schema().cardinalities(), .embedding_dim = 4}));
  }
  at::Tensor forward(const afm::Batch& batch) override {
    const at::Tensor values = embedding->forward(batch.ids).flatten(1).sum(1);
    return is_training() ? (values * 0).square().sqrt() : values;
  }
  std::string_view kind() const override { return "lost_rows"; }
  std::string options_json() const override { return "{}"; }
  std::shared_ptr<afm::Model> rebuild(std::string_view, const afm::RankPlan&) const override { return nullptr; }
  static afm::Schema schema_of(int64_t users) {
    afm::Schema schema;
    schema.fields = {{.name = "user", .cardinality = users}};
    return schema;
  }
  afm::Dataset rows(int64_t count) const {
    const at::Tensor ids = torch::randint(schema().fields[0].cardinality, {count, 1}, torch::kInt32);
    return afm::Dataset::from_tensors(schema(), {ids, {}, (torch::arange(count) % 2).to(torch::kFloat)});
  }

  afm::nn::Embedding embedding{nullptr};
};

std::string where(const std::string& sentence) { return sentence + "; lower TrainOptions.learning_rate"; }

}  // namespace

TEST_CASE("a loss that is not finite names epoch, batch and row, and the best weights stay") {
  const auto rows = planted_clicks(1000, 1).dataset;
  torch::manual_seed(1);
  Failing failing(14, Failing::What::kLogit);
  torch::manual_seed(1);
  Logistic whole;
  const afm::TrainOptions options{.epochs = 5, .batch_size = 100, .learning_rate = 1e-2};
  afm::BatchStream stream(rows, {.batch_size = 100, .shuffle = true, .seed = options.seed});
  stream.start_epoch(1, 4);
  REQUIRE(stream.advance());
  const auto row = stream.index()[2].item<int64_t>();
  CHECK_THROWS_MATCHES(afm::train(failing, rows, rows, options), afm::Error,
                       Message(where("the training loss became nan in epoch 2, batch 5: 1 of 100 logits are not "
                                     "finite, row " +
                                     std::to_string(row) + " of the training set the first")));
  auto one_epoch = options;
  one_epoch.epochs = 1;
  afm::train(whole, rows, rows, one_epoch);
  CHECK(same_bytes(failing, whole));
}

TEST_CASE("a gradient that is not finite names its parameter before the step is taken") {
  const auto rows = planted_clicks(800, 1).dataset;
  torch::manual_seed(1);
  Failing failing(60, Failing::What::kGradient);
  const auto before = failing.embedding->weight.detach().clone();
  CHECK_THROWS_MATCHES(
      afm::train(failing, rows, rows, {.epochs = 1, .batch_size = 8}), afm::Error,
      Message(where("the gradient of 'bias' is not finite, or its square is not, in epoch 1, batch 61")));
  CHECK(torch::equal(failing.embedding->weight, before));  // the start's: no epoch was finished
}

TEST_CASE("gradients of single rows of a table are looked at too, whoever steps them") {
  torch::manual_seed(2);
  const auto kind = GENERATE(afm::OptimizerKind::kAdam, afm::OptimizerKind::kAdagrad);
  LostRows model(GENERATE(20, afm::kLazyElements / 4));
  const auto rows = model.rows(60);
  CHECK_THROWS_MATCHES(
      afm::train(model, rows, rows, {.epochs = 1, .batch_size = 20, .optimizer = kind}), afm::Error,
      Message(where("the gradient of 'embedding.weight' is not finite, or its square is not, in epoch 1, batch 1")));
}

TEST_CASE("a gradient whose square overflows is not taken for a step of zero") {
  const auto rows = planted_clicks(100, 1).dataset;
  struct Steep : Logistic {
    at::Tensor forward(const afm::Batch& batch) override { return Logistic::forward(batch) + bias * 1e30; }
  } steep;
  CHECK_THROWS_MATCHES(
      afm::train(steep, rows, rows, {.epochs = 1, .batch_size = 50}), afm::Error,
      Message(where("the gradient of 'bias' is not finite, or its square is not, in epoch 1, batch 1")));
}

TEST_CASE("the checkpoint of the last good state stays, and a run goes on from it") {
  const auto rows = planted_clicks(400, 1).dataset;
  const ScratchFile file("finite.safetensors");
  afm::TrainOptions options{.epochs = 3, .batch_size = 100, .learning_rate = 1e-2, .checkpoint = file.string()};
  torch::manual_seed(1);
  Failing failing(6, GENERATE(Failing::What::kLogit, Failing::What::kGradient));
  CHECK_THROWS_AS(afm::train(failing, rows, rows, options), afm::Error);
  REQUIRE(std::filesystem::exists(file.path()));
  Logistic resumed;
  options.resume = true;
  afm::train(resumed, rows, rows, options);
  options.checkpoint = {};
  options.resume = false;
  torch::manual_seed(1);
  Logistic fresh;
  afm::train(fresh, rows, rows, options);
  CHECK(same_bytes(resumed, fresh));
}

TEST_CASE("on a GPU the batch of a loss that is not finite is named too", "[cuda]") {
  const std::string device = some_device();
  const auto rows = planted_clicks(8000, 1).dataset;
  Failing failing(14, Failing::What::kLogit);
  try {
    afm::train(failing, rows, rows, {.epochs = 1, .batch_size = 100, .device = device});
    FAIL("nothing was thrown");
  } catch (const afm::Error& error) {
    CHECK_THAT(error.what(), Catch::Matchers::StartsWith("the training loss became nan in epoch 1, batch 15"));
  }
}

TEST_CASE("weights that overflow in the last step of an epoch are found before the metrics", "[cuda]") {
  const std::string device = some_device();
  const auto rows = planted_clicks(100, 1).dataset;
  Logistic model;
  CHECK_THROWS_MATCHES(
      afm::train(model, rows, rows, {.epochs = 1, .batch_size = 100, .learning_rate = 1e300, .device = device}),
      afm::Error, Message(where("'bias' is not finite after epoch 1")));
}

TEST_CASE("weights that are finite but give logits that are not are found by the metrics") {
  const auto rows = planted_clicks(100, 1).dataset;
  struct Blind : Logistic {
    at::Tensor forward(const afm::Batch& batch) override {
      return Logistic::forward(batch) * (is_training() ? 1.0 : kNan);
    }
  } blind;
  CHECK_THROWS_MATCHES(afm::train(blind, rows, rows, {.epochs = 1, .batch_size = 50}), afm::Error,
                       Message(where("the validation logits after epoch 1 are not finite")));
}

TEST_CASE("a teacher whose logits are not finite is refused before training") {
  const auto rows = planted_clicks(100, 1).dataset;
  auto teacher = std::make_shared<Logistic>();
  {
    const torch::NoGradGuard no_grad;
    teacher->bias.fill_(kNan);
  }
  Logistic model;
  CHECK_THROWS_MATCHES(afm::train(model, rows, rows, {.teachers = {std::make_shared<Logistic>(), teacher}}),
                       afm::DataError, Message("teacher 2 of 2 gives row 0 of the training set no finite logit"));
}
