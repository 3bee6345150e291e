#include <memory>
#include <stdexcept>

#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/train/make_optimizer.h"
#include "libafm/train/trainer.h"
#include "tests/train/planted.h"

using afm::TrainOptions;
using afm::testing::same_bytes;
using afm::testing::ScratchFile;

namespace {

constexpr int64_t kUsers = int64_t{1} << 18;
constexpr double kAfterEachBatch = 1e-9, kAfterEpochsOnly = 1e9;

afm::Schema large_schema() {
  afm::Schema schema;
  schema.fields = {{.name = "user", .cardinality = kUsers}, {.name = "item", .cardinality = 20}};
  return schema;
}

// Wide weights of so many ids that their table is trained row by row. Throws in its forward number `killed_at`.
class LargeTable : public afm::Model {
 public:
  LargeTable() : Model(large_schema()) {
    afm::nn::EmbeddingOptions options;
    options.cardinalities = schema().cardinalities();
    options.embedding_dim = 4;
    options.wide = true;
    options.init_std = 0.1;
    embedding = register_module("embedding", afm::nn::Embedding(options));
  }
  at::Tensor forward(const afm::Batch& batch) override {
    if (forwards_++ == killed_at) throw std::runtime_error("killed");
    const auto read = embedding->lookup(batch.ids);
    return read.wide + read.values.sum(1).square().sum(1);
  }
  std::string_view kind() const override { return "large_table"; }
  std::string options_json() const override { return "{}"; }
  std::shared_ptr<afm::Model> rebuild(std::string_view, const afm::RankPlan&) const override {
    return std::make_shared<LargeTable>();
  }

  int64_t killed_at = -1;
  afm::nn::Embedding embedding{nullptr};

 private:
  int64_t forwards_ = 0;
};

std::shared_ptr<LargeTable> fresh_model() {
  torch::manual_seed(5);
  return std::make_shared<LargeTable>();
}

afm::Dataset clicks(int64_t rows, int64_t seed) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  const auto users = (torch::rand({rows}) * 10).exp().to(torch::kInt32);  // a few frequent ones among 22,000
  const auto items = torch::randint(20, {rows}, torch::kInt32);
  const auto label = (torch::rand({rows}) < 0.1 + 0.04 * items).to(torch::kFloat32);
  return afm::Dataset::from_tensors(large_schema(), {torch::stack({users, items}, 1), {}, label});
}

}  // namespace

TEST_CASE("a large table trained row by row resumes bitwise from the middle of an epoch") {
  const double l2 = GENERATE(0.0, 1e-3);
  const auto train_set = clicks(500, 1), valid_set = clicks(200, 2);
  TrainOptions options{.epochs = 2, .batch_size = 50, .learning_rate = 1e-2, .embedding_l2 = l2};
  const auto whole = fresh_model();
  REQUIRE(whole->embedding->weight.numel() >= afm::kLazyElements);
  const auto history = afm::train(*whole, train_set, valid_set, options);
  const ScratchFile file("large.safetensors");
  options.checkpoint = file.string();
  options.checkpoint_seconds = kAfterEachBatch;
  options.resume = true;
  const auto dying = fresh_model();
  dying->killed_at = 4;
  CHECK_THROWS_AS(afm::train(*dying, train_set, valid_set, options), std::runtime_error);
  options.checkpoint_seconds = kAfterEpochsOnly;
  const auto resumed = fresh_model();
  const auto again = afm::train(*resumed, train_set, valid_set, options);
  CHECK(same_bytes(*resumed, *whole));
  CHECK_FALSE(same_bytes(*resumed, *fresh_model()));
  CHECK(again.epochs.back().valid_auc == history.epochs.back().valid_auc);
}

TEST_CASE("a model read from inside an epoch gives the logits of its last step") {
  const auto train_set = clicks(500, 1), valid_set = clicks(200, 2);
  const auto model = fresh_model(), exact = fresh_model();
  const TrainOptions options{.batch_size = 50, .learning_rate = 1e-2};
  const auto lazy = afm::make_optimizer(*model, options, 0);
  const auto dense = afm::make_optimizer(*exact, options, kUsers * 100);
  for (int64_t begin = 0; begin < 500; begin += 50) {
    const auto batch = train_set.range(begin, begin + 50);
    for (const auto& [net, optimizer] : {std::pair{model, lazy.get()}, std::pair{exact, dense.get()}}) {
      optimizer->zero_grad();
      (net->forward(batch) - batch.label).square().mean().backward();
      optimizer->step(1e-2);
    }
    const torch::NoGradGuard no_grad;
    const auto seen = train_set.range(0, begin + 50);
    CHECK(torch::allclose(model->forward(seen), exact->forward(seen), 1e-4, 1e-5));
  }
}
