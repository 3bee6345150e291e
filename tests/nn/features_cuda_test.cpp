#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <torch/cuda.h>
#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>

#include "libafm/core/error.h"
#include "libafm/nn/device_rows.h"
#include "libafm/nn/embedding.h"
#include "libafm/nn/interaction.h"

namespace afm::nn {
namespace {

constexpr double kFeatureError = 2e-6, kFeatureSumError = 2e-5, kFeatureBfloatError = 1e-2;

struct FeatureCase {
  std::vector<int64_t> cardinalities;
  int64_t dim, batch, dense;
  bool wide, interaction;
};

// Few ids are frequent, as in clicks: their rows are read by many blocks.
at::Tensor skewed_feature_ids(const FeatureCase& c) {
  std::vector<at::Tensor> columns;
  for (const int64_t cardinality : c.cardinalities) {
    columns.push_back((torch::rand({c.batch}, torch::kDouble).pow(4) * cardinality).floor().clamp_max(cardinality - 1));
  }
  return at::stack(columns, 1).to(torch::kInt32);
}

std::vector<FeatureCase> random_feature_cases(int count) {
  std::mt19937 random(11);
  const auto below = [&](int64_t end) { return static_cast<int64_t>(random() % static_cast<uint64_t>(end)); };
  constexpr std::array<int64_t, 12> kDims{1, 3, 4, 7, 10, 16, 17, 32, 40, 64, 100, 256};
  constexpr std::array<int64_t, 6> kBatches{1, 2, 31, 257, 2048, 20000};
  std::vector<FeatureCase> cases;
  for (int i = 0; i < count; ++i) {
    FeatureCase c{{},
                  kDims[static_cast<std::size_t>(i) % 12],
                  kBatches[static_cast<std::size_t>(below(6))],
                  below(5),
                  i % 2 == 0,
                  i % 3 != 0};
    const int64_t fields = 1 + below(c.dim > 64 || c.batch > 5000 ? 4 : 45);
    for (int64_t f = 0; f < fields; ++f) c.cardinalities.push_back(1 + below(f % 3 == 0 ? 3 : 3000));
    cases.push_back(c);
  }
  return cases;
}

Embedding case_embedding(const FeatureCase& c) {
  return Embedding(
      EmbeddingOptions{.cardinalities = c.cardinalities, .embedding_dim = c.dim, .wide = c.wide, .init_std = 0.5});
}

// The same table in float64 on the CPU, and in float32 on the device.
struct Twins {
  explicit Twins(const FeatureCase& c) : exact(case_embedding(c)), device(case_embedding(c)) {
    const torch::NoGradGuard no_grad;
    device->weight.copy_(exact->weight);
    device->to(at::kCUDA);
    exact->to(at::kDouble);
  }
  Embedding exact, device;
};

// What features() stands for, from lookup() in float64 on the CPU.
EmbeddingFeatures exact_features(Embedding& exact, const FeatureCase& c, const at::Tensor& ids,
                                 const at::Tensor& dense) {
  const EmbeddingOutput output = exact->lookup(ids);
  EmbeddingFeatures features{output.values.flatten(1), output.wide};
  if (dense.defined()) features.input = at::cat({features.input, dense.to(at::kDouble)}, 1);
  if (!c.interaction) return features;
  const at::Tensor score = factorization_machine(output.values);
  features.score = features.score.defined() ? features.score + score : score;
  return features;
}

double feature_error(const at::Tensor& got, const at::Tensor& exact) {
  const double difference = (got.detach().cpu().to(at::kDouble) - exact.detach()).norm().item<double>();
  return difference / std::max(exact.detach().norm().item<double>(), 1e-30);
}

void need_features() {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  Embedding embedding = case_embedding({{2}, 2, 1, 0, false, false});
  embedding->to(at::kCUDA);
  if (!serves_features(*embedding)) SKIP("a build without AFM_CUDA");
}

// Weights of a scalar function of the features, drawn once for both sides.
struct FeatureProbe {
  at::Tensor input, score;
  at::Tensor of(const EmbeddingFeatures& features) const {
    const auto weigh = [](const at::Tensor& values, const at::Tensor& weights) {
      return (values.to(weights.scalar_type()) * weights).sum();
    };
    const at::Tensor sum = weigh(features.input, input.to(features.input.device()));
    return features.score.defined() ? sum + weigh(features.score, score.to(features.score.device())) : sum;
  }
};

FeatureProbe feature_probe(const EmbeddingFeatures& exact, int64_t batch) {
  return {torch::randn(exact.input.sizes(), at::kFloat), torch::randn({batch}, at::kFloat)};
}

enum class Rows { kOne, kDistinct, kSkewed };  // that the places of a field read

struct RunCase {
  int64_t dim, fields, batch, dense;
  Rows rows;
  at::ScalarType type;
};

// Runs within a lane, a warp, a block and over many blocks, in small and in large blocks, in vectors and without.
std::vector<RunCase> run_cases() {
  std::vector<RunCase> cases;
  for (const int64_t dim : {1, 3, 8, 16, 20, 40, 100, 256}) {
    for (const Rows rows : {Rows::kOne, Rows::kDistinct, Rows::kSkewed}) {
      cases.push_back({dim, 1, 40001, dim % 2, rows, at::kFloat});
      cases.push_back({dim, 39, 700, 0, rows, at::kBFloat16});
      cases.push_back({dim, 39, 257, 13, rows, at::kBFloat16});  // rows of the input that are not aligned
    }
  }
  for (const int64_t dim : {3, 8, 16, 20, 40, 100}) cases.push_back({dim, 1, 530000, 0, Rows::kOne, at::kFloat});
  for (const int64_t dim : {8, 16, 20}) {
    cases.push_back({dim, 39, 14000, 0, Rows::kSkewed, at::kBFloat16});
    cases.push_back({dim, 39, 14000, 1, Rows::kSkewed, at::kFloat});
  }
  return cases;
}

at::Tensor run_ids(const RunCase& run, const FeatureCase& c) {
  if (run.rows == Rows::kSkewed) return skewed_feature_ids(c);
  if (run.rows == Rows::kOne) return torch::ones({c.batch, run.fields}, torch::kInt32);
  return torch::randperm(c.batch, torch::kInt32).unsqueeze(1).expand({c.batch, run.fields}).contiguous();
}

}  // namespace

TEST_CASE("features on a GPU and their gradients are those of float64, whatever the shape", "[cuda]") {
  need_features();
  torch::manual_seed(1);
  for (const FeatureCase& c : random_feature_cases(36)) {
    CAPTURE(c.cardinalities, c.dim, c.batch, c.dense, c.wide, c.interaction);
    auto [exact, device] = Twins(c);
    const at::Tensor ids = skewed_feature_ids(c), dense = c.dense > 0 ? torch::randn({c.batch, c.dense}) : at::Tensor();
    const auto features = device->features(ids.cuda(), dense.defined() ? dense.cuda() : dense, c.interaction);
    REQUIRE(features.has_value());
    const EmbeddingFeatures expected = exact_features(exact, c, ids, dense);
    CHECK(feature_error(features->input, expected.input) < kFeatureError);
    REQUIRE(features->score.defined() == expected.score.defined());
    if (expected.score.defined()) CHECK(feature_error(features->score, expected.score) < kFeatureSumError);

    const FeatureProbe probe = feature_probe(expected, c.batch);
    const at::Tensor got = torch::autograd::grad({probe.of(*features)}, {device->weight})[0];
    const at::Tensor want = torch::autograd::grad({probe.of(expected)}, {exact->weight})[0];
    CHECK(feature_error(got, want) < kFeatureSumError);
    CHECK(feature_error(got, want * 1.001) > kFeatureSumError);  // the bound can fail
  }
}

TEST_CASE("runs of any length are added up as in float64, and to the same bits each time", "[cuda]") {
  need_features();
  torch::manual_seed(5);
  int which = 0;
  for (const RunCase& run : run_cases()) {
    CAPTURE(run.dim, run.fields, run.batch, run.dense, static_cast<int>(run.rows), run.type == at::kFloat);
    const int64_t cardinality = run.rows == Rows::kDistinct ? run.batch : 3000;
    const bool interaction = ++which % 2 == 0;
    const FeatureCase c{std::vector<int64_t>(static_cast<std::size_t>(run.fields), cardinality),
                        run.dim,
                        run.batch,
                        run.dense,
                        /*wide=*/true,
                        interaction};
    auto [exact, device] = Twins(c);
    device->feature_type = run.type;
    const at::Tensor ids = run_ids(run, c), dense = c.dense > 0 ? torch::randn({c.batch, c.dense}) : at::Tensor();
    const EmbeddingFeatures expected = exact_features(exact, c, ids, dense);
    FeatureProbe probe = feature_probe(expected, c.batch);
    probe.input = probe.input.to(run.type).to(at::kFloat);  // so that the gradient that goes back is exact
    const at::Tensor want = torch::autograd::grad({probe.of(expected)}, {exact->weight})[0];
    const at::Tensor ids_there = ids.cuda(), dense_there = dense.defined() ? dense.cuda() : dense;
    const auto gradient = [&] {
      return torch::autograd::grad({probe.of(*device->features(ids_there, dense_there, interaction))},
                                   {device->weight})[0];
    };
    const at::Tensor got = gradient();
    CHECK(feature_error(got, want) < kFeatureSumError);
    CHECK(feature_error(got, want * 1.001) > kFeatureSumError);  // the bound can fail
    for (int i = 0; i < 4; ++i) CHECK(at::equal(gradient(), got));
  }
}

TEST_CASE("a gradient of the features alone, or of the score alone, is that of float64", "[cuda]") {
  need_features();
  torch::manual_seed(6);
  const FeatureCase c{{1, 50, 3000}, 16, 3001, 0, true, true};
  auto [exact, device] = Twins(c);
  const at::Tensor ids = skewed_feature_ids(c), weights = torch::randn({c.batch}, torch::kDouble);
  const EmbeddingFeatures expected = exact_features(exact, c, ids, {});
  const auto features = device->features(ids.cuda(), {}, c.interaction);
  const auto gradient = [&](const at::Tensor& values, const at::Tensor& table) {
    const at::Tensor sum = values.dim() == 2 ? values.sum(1) : values;
    return torch::autograd::grad({(sum * weights.to(sum.options())).sum()}, {table}, {}, /*retain_graph=*/true)[0];
  };
  for (const auto& [got, want] : {std::pair(features->input, expected.input), {features->score, expected.score}}) {
    const at::Tensor of_device = gradient(got, device->weight), exactly = gradient(want, exact->weight);
    CHECK(feature_error(of_device, exactly) < kFeatureSumError);
    CHECK(feature_error(of_device, exactly * 1.001) > kFeatureSumError);  // the bound can fail
  }
}

TEST_CASE("gradients of features are the same bits each time", "[cuda]") {
  need_features();
  torch::manual_seed(2);
  const FeatureCase c{{1, 2, 50, 100000}, 16, 65536, 0, true, true};
  Embedding embedding = case_embedding(c);
  embedding->to(at::kCUDA);
  const at::Tensor ids = skewed_feature_ids(c).cuda();
  const FeatureProbe probe{torch::randn({c.batch, 4 * 16}), torch::randn({c.batch})};
  const auto gradient = [&] {
    return torch::autograd::grad({probe.of(*embedding->features(ids, {}, true))}, {embedding->weight})[0];
  };
  const at::Tensor first = gradient();
  for (int i = 0; i < 5; ++i) CHECK(at::equal(gradient(), first));
}

TEST_CASE("bfloat16 features are rounded, and so are their gradients, the table's score is not", "[cuda]") {
  need_features();
  torch::manual_seed(3);
  const FeatureCase c{{7, 300, 2}, 16, 3000, 2, true, true};
  auto [exact, device] = Twins(c);
  device->feature_type = at::kBFloat16;
  const at::Tensor ids = skewed_feature_ids(c), dense = torch::randn({c.batch, c.dense});
  const auto features = device->features(ids.cuda(), dense.cuda(), true);
  REQUIRE(features.has_value());
  CHECK(features->input.scalar_type() == at::kBFloat16);
  const EmbeddingFeatures expected = exact_features(exact, c, ids, dense);
  CHECK(feature_error(features->input, expected.input) < kFeatureBfloatError);
  CHECK(feature_error(features->input, expected.input) > kFeatureSumError);
  CHECK(feature_error(features->score, expected.score) < kFeatureSumError);
  const FeatureProbe probe = feature_probe(expected, c.batch);
  const at::Tensor got = torch::autograd::grad({probe.of(*features)}, {device->weight})[0];
  CHECK(feature_error(got, torch::autograd::grad({probe.of(expected)}, {exact->weight})[0]) < kFeatureBfloatError);
}

TEST_CASE("features refuse an id out of range by name, and without the check read a row that exists", "[cuda]") {
  need_features();
  Embedding embedding(EmbeddingOptions{.cardinalities = {3, 4}, .embedding_dim = 2, .names = {"user", "item"}});
  embedding->to(at::kCUDA);
  const at::Tensor ids = torch::tensor({{0, 1}, {2, 4}}, torch::kInt32).cuda();
  try {
    embedding->features(ids, {}, false);
    FAIL("an id out of range was read");
  } catch (const DataError& error) {
    CHECK(std::string(error.what()).find("field 'item' has id 4, its ids are 0 to 3") != std::string::npos);
  }
  embedding->check_ids = false;
  const auto features = embedding->features(ids, {}, false);
  REQUIRE(features.has_value());
  CHECK(at::equal(features->input[1].narrow(0, 2, 2), embedding->weight[6]));
}

TEST_CASE("a lookup with a hook goes the long way, so that the hook is called", "[cuda]") {
  need_features();
  Embedding embedding = case_embedding({{3}, 2, 1, 0, false, false});
  embedding->to(at::kCUDA);
  const at::Tensor ids = torch::zeros({2, 1}, torch::kInt32).cuda();
  REQUIRE(embedding->features(ids, {}, false).has_value());
  embedding->set_output_hook([](const at::Tensor&, const at::Tensor&) {});
  CHECK_FALSE(embedding->features(ids, {}, false).has_value());
}

}  // namespace afm::nn
