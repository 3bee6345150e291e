#include <cmath>
#include <stdexcept>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/compress/statistics.h"
#include "libafm/nn/mlp.h"
#include "tests/compress/mlp_model.h"
#include "tests/compress/ranker.h"
#include "tests/core/temporary_folder.h"

namespace afm::testing {
namespace {

constexpr double kMetricRounding = 1e-10;

at::Tensor outer_sum(const at::Tensor& rows) { return torch::mm(rows.t(), rows); }

// The parts of a ranker's forward pass with the logit's gradient in each, by LibTorch's own backward pass.
struct Reference {
  at::Tensor values, wide, first, second, narrow, logit;
  std::vector<at::Tensor> gradients;  // of values, wide, first, second, narrow; times sqrt(p (1 - p))

  Reference(Ranker ranker, const at::Tensor& ids) {
    const auto found = ranker->embedding->lookup(ids);
    values = found.values;
    wide = found.wide;
    first = ranker->tower->mix(values.flatten(1));
    second = ranker->tower->mix(torch::relu(first));
    narrow = ranker->tower->narrow(torch::relu(second));
    logit = ranker->head(torch::relu(narrow)).squeeze(1) + wide;
    const auto p = torch::sigmoid(logit.detach());
    const auto weight = (p * (1 - p)).sqrt();
    gradients = torch::autograd::grad({logit}, {values, wide, first, second, narrow}, {weight});
  }
};

TEST_CASE("the metric of a linear layer is the mean of p (1 - p) a a' over rows, summed over its uses") {
  auto ranker = make_ranker();
  const auto ids = make_ids(350);
  const auto statistics = statistics_of(ranker, ids, {.metric = true});
  const Reference reference(ranker, ids);
  const auto p = torch::sigmoid(reference.logit.detach());
  const auto& g = reference.gradients;
  CHECK(std::abs(statistics.layers.at("head").metric.at(0).item<double>() - (p * (1 - p)).mean().item<double>()) <
        kMetricRounding);
  CHECK(relative_error(statistics.layers.at("tower.narrow").metric.at(0), outer_sum(g[4]) / 350) < kMetricRounding);
  const auto mix = (outer_sum(g[2]) + outer_sum(g[3])) / 350;
  CHECK(relative_error(statistics.layers.at("tower.mix").metric.at(0), mix) < kMetricRounding);
}

TEST_CASE("the metric of a field is that of its embedding and wide weight, over the rows that have a value") {
  auto ranker = make_ranker();
  const auto ids = make_ids(350);
  const auto layer = statistics_of(ranker, ids, {.metric = true}).layers.at("embedding");
  const Reference reference(ranker, ids);
  REQUIRE(layer.metric.size() == 4);
  int64_t slot = 0;
  for (std::size_t j = 0; j < kSlots.size(); ++j) {
    const auto filled = ids.narrow(1, slot, kSlots[j]).ne(kEmptySlot).any(1);
    const auto g =
        torch::cat({reference.gradients[0].select(1, static_cast<int64_t>(j)), reference.gradients[1].unsqueeze(1)},
                   1) *
        filled.unsqueeze(1);
    CHECK(relative_error(layer.metric[j], outer_sum(g) / 350) < kMetricRounding);
    slot += kSlots[j];
  }
}

TEST_CASE("a metric does not depend on batches, and float32 gives the one of float64") {
  auto ranker = make_ranker();
  const auto ids = make_ids(300);
  const auto forward = [ranker](const at::Tensor& rows) mutable { return ranker(rows); };
  const auto whole = collect_statistics(*ranker, batches_of(ids, 300, forward), {.metric = true});
  const auto pieces = collect_statistics(*ranker, batches_of(ids, 7, forward), {.metric = true});
  const auto single = statistics_of(make_ranker(1, torch::kFloat), ids, {.metric = true});
  for (const auto& [path, layer] : whole.layers) {
    for (std::size_t i = 0; i < layer.metric.size(); ++i) {
      CHECK(relative_error(pieces.layers.at(path).metric[i], layer.metric[i]) < kMetricRounding);
      CHECK(relative_error(single.layers.at(path).metric[i], layer.metric[i]) < 1e-4);
    }
  }
}

TEST_CASE("outputs that ReLU overwrites in place have the gradient from before it") {
  torch::manual_seed(4);
  nn::Mlp mlp(nn::MlpOptions{.in_features = 5, .hidden = {7}, .out_features = 1, .batch_norm = false});
  mlp->to(torch::kDouble);
  const auto input = torch::randn({60, 5}, torch::kDouble);
  bool done = false;
  const auto statistics = collect_statistics(*mlp,
                                             [&]() -> std::optional<at::Tensor> {
                                               if (std::exchange(done, true)) return std::nullopt;
                                               return mlp(input).squeeze(1);
                                             },
                                             {.metric = true});
  const torch::NoGradGuard no_grad;
  const auto y = torch::linear(input, mlp->layers[0]->weight, mlp->layers[0]->bias);
  const auto p = torch::sigmoid(mlp->head(torch::relu(y)).squeeze(1));
  const auto g = mlp->head->weight * y.gt(0) * (p * (1 - p)).sqrt().unsqueeze(1);
  CHECK(relative_error(statistics.layers.at("layers.0").metric.at(0), outer_sum(g) / 60) < kMetricRounding);
}

TEST_CASE("a metric gives no parameter a gradient, and frozen ones stay frozen") {
  auto ranker = make_ranker();
  const auto ids = make_ids(100);
  const auto free = statistics_of(ranker, ids, {.metric = true});
  for (const auto& parameter : ranker->parameters()) parameter.set_requires_grad(false);
  const auto frozen = statistics_of(ranker, ids, {.metric = true});
  for (const auto& parameter : ranker->parameters()) {
    CHECK_FALSE(parameter.requires_grad());
    CHECK_FALSE(parameter.grad().defined());
  }
  CHECK(torch::equal(free.layers.at("tower.mix").metric[0], frozen.layers.at("tower.mix").metric[0]));
  CHECK(torch::equal(free.layers.at("embedding").metric[2], frozen.layers.at("embedding").metric[2]));
}

TEST_CASE("a metric needs gradients") {
  auto ranker = make_ranker();
  const auto forward = [ranker](const at::Tensor& rows) mutable {
    const torch::NoGradGuard no_grad;
    return ranker(rows);
  };
  CHECK(message_of<std::invalid_argument>([&] {
          collect_statistics(*ranker, batches_of(make_ids(50), 50, forward), {.metric = true});
        }) == "CollectOptions.metric must be false when next_logits switches gradients off, got true");
}

TEST_CASE("a row whose logit is not finite counts for nothing in the metric") {
  nn::Linear layer(3, 1);
  layer->to(torch::kDouble);
  const auto input = torch::randn({2000, 3}, torch::kDouble);
  const auto collect = [&](const at::Tensor& rows) {
    bool done = false;
    return collect_statistics(*layer,
                              [&]() -> std::optional<at::Tensor> {
                                if (std::exchange(done, true)) return std::nullopt;
                                return layer(rows).squeeze(1);
                              },
                              {.metric = true})
        .layers.at("")
        .metric.at(0);
  };
  auto damaged = torch::cat({input, torch::full({1, 3}, NAN, torch::kDouble)});
  CHECK(relative_error(collect(damaged), collect(input)) < kMetricRounding);
}

TEST_CASE("without options statistics hold neither metric nor input moments") {
  const auto statistics = statistics_of(make_ranker(), make_ids(50));
  for (const auto& [path, layer] : statistics.layers) {
    CHECK(layer.metric.empty());
    CHECK(layer.input.dim() == 0);
  }
}

TEST_CASE("input moments are those of a layer's inputs, of all its uses") {
  auto ranker = make_ranker();
  const auto ids = make_ids(200);
  const auto statistics = statistics_of(ranker, ids, {.input_moments = true});
  const torch::NoGradGuard no_grad;
  const auto values = ranker->embedding(ids).flatten(1);
  const auto again = torch::relu(ranker->tower->mix(values));
  Moments moments;
  moments.add(torch::cat({values, again}));
  const auto& layer = statistics.layers.at("tower.mix");
  CHECK(layer.input.count() == 400.0);
  CHECK(relative_error(layer.input.covariance(), moments.covariance()) < kMetricRounding);
  CHECK(torch::equal(layer.input.mean(), layer.input_mean));
}

TEST_CASE("joint moments are those of embedding and wide weight together, pooled as a lookup does") {
  auto ranker = make_ranker();
  const auto ids = make_ids(300);
  const auto layer = statistics_of(ranker, ids).layers.at("embedding");
  const torch::NoGradGuard no_grad;
  const auto values = ranker->embedding(ids);
  const auto wide = ranker->embedding->wide_weights();
  REQUIRE(layer.joint.size() == 4);
  int64_t slot = 0, row = 0;
  for (std::size_t j = 0; j < kSlots.size(); ++j) {
    const auto own = ids.narrow(1, slot, kSlots[j]), used = own.ne(kEmptySlot), filled = used.any(1);
    const auto weights = wide.index({own.clamp_min(0).to(torch::kLong) + row}) * used;
    const auto pooled = weights.sum(1) / used.sum(1).clamp_min(1);
    const auto both = torch::cat({values.select(1, static_cast<int64_t>(j)), pooled.unsqueeze(1)}, 1);
    Moments moments;
    moments.add(both.index({filled}));
    CHECK(layer.joint[j].count() == moments.count());
    CHECK(relative_error(layer.joint[j].mean(), moments.mean()) < kMetricRounding);
    CHECK(relative_error(layer.joint[j].covariance(), moments.covariance()) < kMetricRounding);
    slot += kSlots[j];
    row += kCardinalities[j];
  }
}

TEST_CASE("id blocks cover the ids in order and add up to the field") {
  auto ranker = make_ranker();
  const auto layer = statistics_of(ranker, make_ids(300)).layers.at("embedding");
  const auto wide = ranker->embedding->wide_weights();
  REQUIRE(layer.id_blocks.size() == 4);
  int64_t row = 0;
  for (std::size_t j = 0; j < 4; ++j) {
    const auto table = torch::cat(
        {ranker->embedding->table(static_cast<int64_t>(j)), wide.narrow(0, row, kCardinalities[j]).unsqueeze(1)}, 1);
    Moments all(kDim + 1), whole(kDim + 1);
    int64_t begin = 0;
    for (const IdBlock& block : layer.id_blocks[j]) {
      CHECK(block.begin == begin);
      CHECK(block.end > begin);
      const auto counts = layer.id_counts[j].narrow(0, begin, block.end - begin);
      CHECK(block.rows.count() == counts.sum().item<double>());
      all.merge(block.rows);
      begin = block.end;
    }
    CHECK(begin == kCardinalities[j]);
    whole.add_weighted(table, layer.id_counts[j]);
    CHECK(relative_error(all.covariance(), whole.covariance()) < kMetricRounding);
    row += kCardinalities[j];
  }
  CHECK(layer.id_blocks[0].size() == 12);  // ends 1 2 3 4 6 8 12 16 24 32 48 60
}

}  // namespace
}  // namespace afm::testing
