#include "libafm/train/fit_many.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <ATen/Parallel.h>
#include <torch/cuda.h>
#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "libafm/core/error.h"
#include "libafm/nn/mlp.h"
#include "tests/train/planted.h"

using afm::fit_many;
using afm::History;
using afm::Model;
using afm::Progress;
using afm::TrainOptions;
using afm::testing::kFields;
using afm::testing::planted_clicks;
using afm::testing::planted_schema;
using afm::testing::same_bytes;
using afm::testing::ScratchFile;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::Message;
using Catch::Matchers::MessageMatches;

namespace {

constexpr double kDropout = 0.3;

struct Shape {
  int64_t dim = 4;
  std::vector<int64_t> hidden = {16, 8};
  bool batch_norm = true;
  double dropout = kDropout;
};

// An embedding and our MLP, with all that must stay its own: batch norm, dropout.
class Small : public Model {
 public:
  explicit Small(const Shape& shape) : Model(planted_schema()), shape_(shape) {
    afm::nn::EmbeddingOptions options;
    options.cardinalities = schema().cardinalities();
    options.embedding_dim = shape.dim;
    options.init_std = 0.1;
    embedding = register_module("embedding", afm::nn::Embedding(options));
    mlp = register_module("mlp", afm::nn::Mlp(afm::nn::MlpOptions{.in_features = kFields * shape.dim,
                                                                  .hidden = shape.hidden,
                                                                  .out_features = 1,
                                                                  .batch_norm = shape.batch_norm,
                                                                  .dropout = shape.dropout}));
  }
  at::Tensor forward(const afm::Batch& batch) override {
    // On a GPU the one lookup whose gradients have the same bits each time.
    const auto features = embedding->features(batch.ids, {}, /*interaction=*/false);
    return mlp->forward(features ? features->input : embedding->forward(batch.ids).flatten(1)).squeeze(1);
  }
  bool repeats_itself() const override { return true; }
  std::string_view kind() const override { return "small"; }
  std::string options_json() const override { return "{}"; }
  std::shared_ptr<Model> rebuild(std::string_view, const afm::RankPlan&) const override {
    return std::make_shared<Small>(shape_);
  }

  afm::nn::Embedding embedding{nullptr};
  afm::nn::Mlp mlp{nullptr};

 private:
  Shape shape_;
};

std::vector<std::shared_ptr<Model>> small_models(int64_t count, const Shape& shape = {}) {
  std::vector<std::shared_ptr<Model>> models;
  for (int64_t i = 0; i < count; ++i) {
    torch::manual_seed(100 + i);
    models.push_back(std::make_shared<Small>(shape));
  }
  return models;
}

// Seeds and settings, one of each kind.
std::vector<TrainOptions> various(int64_t count, const TrainOptions& common = {}) {
  std::vector<TrainOptions> options(static_cast<std::size_t>(count), common);
  for (int64_t i = 0; i < count; ++i) {
    auto& own = options[static_cast<std::size_t>(i)];
    own.epochs = 2 + i % 3;
    own.batch_size = 200 + 50 * (i % 2);
    own.learning_rate = 1e-2 / static_cast<double>(1 + i);
    own.embedding_l2 = 1e-4 * static_cast<double>(i % 2);
    own.patience = 0;
    own.seed = i;
  }
  return options;
}

void check_same(const History& a, const History& b) {
  REQUIRE(a.epochs.size() == b.epochs.size());
  for (std::size_t i = 0; i < a.epochs.size(); ++i) {
    CHECK(a.epochs[i].train_loss == b.epochs[i].train_loss);
    CHECK(a.epochs[i].valid_auc == b.epochs[i].valid_auc);
    CHECK(a.epochs[i].learning_rate == b.epochs[i].learning_rate);
  }
  CHECK(a.best_epoch == b.best_epoch);
  CHECK(a.stopped_early == b.stopped_early);
}

// A number of threads, within a scope.
class Threads {
 public:
  explicit Threads(int count) : before_(at::get_num_threads()) { at::set_num_threads(count); }
  ~Threads() { at::set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

const afm::Dataset& train_rows() {
  static const afm::Dataset rows = planted_clicks(1500, 1).dataset;
  return rows;
}
const afm::Dataset& valid_rows() {
  static const afm::Dataset rows = planted_clicks(800, 2).dataset;
  return rows;
}

}  // namespace

TEST_CASE("many models at once are those of one run after the other, bit for bit") {
  const int threads = GENERATE(1, 2, 3);
  const bool batch_norm = GENERATE(true, false);
  const int64_t count = 5;
  const auto options = various(count);
  const auto expected = small_models(count, {.batch_norm = batch_norm}),
             models = small_models(count, {.batch_norm = batch_norm});
  std::vector<History> histories;
  {
    const Threads one(1);
    for (std::size_t i = 0; i < options.size(); ++i) {
      histories.push_back(afm::train(*expected[i], train_rows(), valid_rows(), options[i]));
    }
  }
  const Threads several(threads);
  const auto found = fit_many(models, train_rows(), valid_rows(), options);
  CHECK(at::get_num_threads() == threads);
  REQUIRE(found.size() == histories.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    check_same(found[i], histories[i]);
    CHECK(same_bytes(*models[i], *expected[i]));
  }
  CHECK_FALSE(same_bytes(*models[0], *models[3]));
}

TEST_CASE("models that train beside others leave the default generator alone") {
  torch::manual_seed(5);
  const auto expected = torch::rand({4});
  const auto models = small_models(3);
  const auto &rows = train_rows(), &held_out = valid_rows();  // drawn by the default generator, too
  torch::manual_seed(5);
  fit_many(models, rows, held_out, various(3));
  CHECK(torch::equal(torch::rand({4}), expected));
}

TEST_CASE("progress of many models comes on the calling thread with the place of its model") {
  const Threads two(2);
  const auto options = various(4);
  const auto models = small_models(4);
  const auto caller = std::this_thread::get_id();
  std::vector<int64_t> epochs(4, 0);
  fit_many(models, train_rows(), valid_rows(), options, [&](int64_t model, const Progress& progress) {
    REQUIRE(std::this_thread::get_id() == caller);
    const auto i = static_cast<std::size_t>(model);
    CHECK(progress.epochs == options.at(i).epochs);
    if (progress.finished) CHECK(progress.finished->epoch == ++epochs.at(i));
  });
  for (std::size_t i = 0; i < options.size(); ++i) CHECK(epochs[i] == options[i].epochs);
}

TEST_CASE("a callback that throws stops all models, and each goes on from its checkpoint") {
  const Threads two(2);
  auto options = various(3);
  const auto expected = small_models(3), stopped = small_models(3), resumed = small_models(3);
  const auto histories = fit_many(expected, train_rows(), valid_rows(), options);
  std::vector<std::unique_ptr<ScratchFile>> files;
  for (std::size_t i = 0; i < options.size(); ++i) {
    files.push_back(std::make_unique<ScratchFile>("many" + std::to_string(i) + ".safetensors"));
    options[i].checkpoint = files.back()->string();
    options[i].resume = true;
  }
  int epochs = 0;
  CHECK_THROWS_MATCHES(fit_many(stopped, train_rows(), valid_rows(), options,
                                [&](int64_t, const Progress& progress) {
                                  if (progress.finished && ++epochs == 3) throw std::runtime_error("enough");
                                }),
                       std::runtime_error, Message("enough"));
  CHECK(epochs == 3);
  const auto found = fit_many(resumed, train_rows(), valid_rows(), options);
  for (std::size_t i = 0; i < found.size(); ++i) {
    check_same(found[i], histories[i]);
    CHECK(same_bytes(*resumed[i], *expected[i]));
  }
}

TEST_CASE("an error in one model stops the others and names it") {
  const Threads two(2);
  auto options = various(3);
  for (auto& own : options) own.epochs = 1000;
  options[1].learning_rate = 1e30;
  const auto models = small_models(3, {.batch_norm = false});
  CHECK_THROWS_MATCHES(fit_many(models, train_rows(), valid_rows(), options), afm::Error,
                       MessageMatches(ContainsSubstring("models[1]: ") && ContainsSubstring("epoch 1")));
}

TEST_CASE("what does not go together is refused by the place of the model") {
  auto models = small_models(3);
  auto options = various(3);
  const auto refused = [&](const std::string& message) {
    CHECK_THROWS_MATCHES(fit_many(models, train_rows(), valid_rows(), options), std::invalid_argument,
                         MessageMatches(ContainsSubstring(message)));
  };
  SECTION("options of another number") {
    options.pop_back();
    refused("fit_many needs options for each of its 3 models, got 2");
  }
  SECTION("an option that breaks its rule") {
    options[2].batch_size = 1;
    refused("models[2]: TrainOptions.batch_size must be at least 2, got 1");
  }
  SECTION("the same model twice") {
    models[2] = models[1];
    refused("models[2] must not share parameters with models[1], but both have the same 'embedding.weight'");
  }
  SECTION("a teacher under training") {
    options[1].teachers = {models[0]};
    refused("the teacher of models[1] must not be one of the models under training");
  }
  SECTION("one checkpoint for two") {
    options[0].checkpoint = options[2].checkpoint = "same";
    refused("models[2]: TrainOptions.checkpoint must be a file of its own, got 'same' again");
  }
  SECTION("data that does not fit") {
    const auto other = small_models(3);
    const auto labels = torch::ones({800});
    CHECK_THROWS_MATCHES(fit_many(models, train_rows(), afm::testing::with_labels(valid_rows(), labels), options),
                         afm::DataError, MessageMatches(ContainsSubstring("models[0]: the validation set")));
  }
  CHECK(fit_many({}, train_rows(), valid_rows(), {}).empty());
}

TEST_CASE("models with common teachers learn what they learn alone") {
  const Threads two(2);
  const auto teachers = small_models(2, {.dropout = 0});
  auto options = various(3);
  for (auto& own : options) own.teachers = teachers;
  const auto expected = small_models(3), models = small_models(3);
  {
    const Threads one(1);
    for (std::size_t i = 0; i < 3; ++i) afm::train(*expected[i], train_rows(), valid_rows(), options[i]);
  }
  fit_many(models, train_rows(), valid_rows(), options);
  for (std::size_t i = 0; i < 3; ++i) CHECK(same_bytes(*models[i], *expected[i]));
}

TEST_CASE("many models at once on a GPU are those of one run after the other", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  const bool graph = GENERATE(true, false), batch_norm = GENERATE(true, false);
  const int64_t count = 6;
  auto options = various(count, {.optimizer = afm::OptimizerKind::kAdagrad, .device = "cuda", .cuda_graph = graph});
  options[1].precision = options[4].precision = afm::Precision::kTf32;
  options[2].precision = afm::Precision::kBf16;
  const auto expected = small_models(count, {.batch_norm = batch_norm}),
             models = small_models(count, {.batch_norm = batch_norm});
  std::vector<History> histories;
  for (std::size_t i = 0; i < options.size(); ++i) {
    histories.push_back(afm::train(*expected[i], train_rows(), valid_rows(), options[i]));
  }
  const auto found = fit_many(models, train_rows(), valid_rows(), options);
  for (std::size_t i = 0; i < found.size(); ++i) {
    CAPTURE(i, graph, batch_norm);
    check_same(found[i], histories[i]);
    CHECK(same_bytes(*models[i], *expected[i]));
  }
}

// Layers of the width and batches of the size that have matrix products of their own there, which share the device.
TEST_CASE("wide models in bfloat16 at once on a GPU are those of one run after the other", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  const bool graph = GENERATE(true, false);
  const int64_t count = 4;
  const Shape shape{.dim = 400 / kFields / 8 * 8, .hidden = {400, 400, 104}, .batch_norm = false, .dropout = 0};
  static const afm::Dataset rows = planted_clicks(10000, 1).dataset;
  const TrainOptions common{.epochs = 2,
                            .optimizer = afm::OptimizerKind::kAdagrad,
                            .patience = 0,
                            .device = "cuda",
                            .precision = afm::Precision::kBf16,
                            .cuda_graph = graph};
  std::vector<TrainOptions> options(count, common);
  for (std::size_t i = 0; i < options.size(); ++i) options[i].seed = static_cast<int64_t>(i);
  const auto expected = small_models(count, shape), models = small_models(count, shape);
  std::vector<History> histories;
  for (std::size_t i = 0; i < options.size(); ++i) {
    histories.push_back(afm::train(*expected[i], rows, valid_rows(), options[i]));
  }
  const auto found = fit_many(models, rows, valid_rows(), options);
  for (std::size_t i = 0; i < found.size(); ++i) {
    CAPTURE(i, graph);
    check_same(found[i], histories[i]);
    CHECK(same_bytes(*models[i], *expected[i]));
    if (i > 0) CHECK_FALSE(same_bytes(*models[i], *models[0]));
  }
}
