#include "libafm/linalg/moments.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

#include "tests/linalg/random_layers.h"

using Catch::Matchers::Message;

namespace afm::testing {

constexpr double kMomentRounding = 1e-12;  // float64 sums of a few hundred rows

TEST_CASE("streamed moments are the mean and covariance of all rows") {
  torch::manual_seed(GENERATE(range(0, 10)));
  const auto dtype = GENERATE(at::kDouble, at::kFloat, at::kHalf, at::kBFloat16);
  const int64_t dim = random_size(1, 40), rows = random_size(1, 500);
  const at::Tensor data = correlated_rows(rows, dim).to(dtype);
  Moments moments(dim);
  for (const auto& batch : data.split(random_size(1, rows))) moments.add(batch);

  const at::Tensor exact = data.to(at::kDouble);
  CHECK(moments.count() == static_cast<double>(rows));
  CHECK(moments.dim() == dim);
  CHECK(relative_error(moments.mean(), exact.mean(0)) < kMomentRounding);
  CHECK((moments.covariance() - two_pass_covariance(exact)).norm().item<double>() <
        kMomentRounding * exact.square().sum().item<double>());
  CHECK(at::equal(moments.covariance(), moments.covariance().t()));
}

TEST_CASE("partial moments merge to those of one pass, in any order") {
  const int seed = GENERATE(range(0, 10));
  torch::manual_seed(seed);
  const int64_t dim = random_size(1, 20);
  const at::Tensor data = correlated_rows(400, dim, 100.0);
  const Moments whole = moments_of(data);
  std::vector<Moments> parts;
  for (const auto& batch : data.split_with_sizes({1, 150, 2, 200, 47})) parts.push_back(moments_of(batch));
  parts.emplace_back(dim);  // nothing seen yet
  parts.emplace_back();
  std::shuffle(parts.begin(), parts.end(), std::mt19937(static_cast<unsigned>(seed)));

  Moments merged;
  for (const Moments& part : parts) merged.merge(part);
  CHECK(merged.count() == 400.0);
  CHECK(relative_error(merged.mean(), whole.mean()) < kMomentRounding);
  CHECK(relative_error(merged.covariance(), whole.covariance()) < kMomentRounding);
}

TEST_CASE("moments merged with themselves are the same rows seen twice") {
  torch::manual_seed(2);
  Moments moments = moments_of(correlated_rows(30, 4));
  const at::Tensor mean = moments.mean(), covariance = moments.covariance();
  moments.merge(moments);
  CHECK(moments.count() == 60.0);
  CHECK(at::equal(moments.mean(), mean));
  CHECK(relative_error(moments.covariance(), covariance) < kMomentRounding);
}

TEST_CASE("float32 rows of mean 200 and spread 1 keep their covariance, which naive float32 sums lose") {
  torch::manual_seed(7);
  const at::Tensor data = (at::mm(randn({200'000, 4}), randn({4, 4})) + 200.0).to(at::kFloat);
  const at::Tensor wanted = two_pass_covariance(data.to(at::kDouble));
  Moments moments(4);
  at::Tensor squares = torch::zeros({4, 4}), sums = torch::zeros({4});
  for (const auto& batch : data.split(1000)) {
    moments.add(batch);
    squares += at::mm(batch.t(), batch);
    sums += batch.sum(0);
  }
  const at::Tensor mean = sums / 200'000;
  CHECK(relative_error(moments.covariance(), wanted) < kMomentRounding);
  CHECK(relative_error(squares / 200'000 - at::outer(mean, mean), wanted) > 1e-4);
}

TEST_CASE("a mean ten thousand times the spread costs no digits") {
  torch::manual_seed(8);
  const at::Tensor spread = correlated_rows(20'000, 6, 0.0);
  const at::Tensor data = spread + 1e4 * spread.std();
  Moments moments(6);
  for (const auto& batch : data.split(777)) moments.add(batch);
  CHECK(relative_error(moments.covariance(), two_pass_covariance(data)) < 1e-11);
}

TEST_CASE("a batch taller than a chunk, with a mean that drifts, equals the sum of its parts") {
  torch::manual_seed(9);
  const at::Tensor drift = 1e3 * torch::linspace(-1.0, 1.0, 60'000, torch::kDouble).unsqueeze(1);
  const at::Tensor data = correlated_rows(60'000, 64) + drift;
  const Moments whole = moments_of(data);
  CHECK(whole.count() == 60'000.0);
  CHECK(relative_error(whole.mean(), data.mean(0)) < 1e-11);
  CHECK(relative_error(whole.covariance(), two_pass_covariance(data)) < 1e-11);
}

TEST_CASE("rows with a NaN or an infinity are skipped and counted") {
  torch::manual_seed(10);
  at::Tensor data = correlated_rows(90, 5);
  const Moments clean = moments_of(data.narrow(0, 3, 80));
  data[0][4] = NAN;
  data[1][0] = INFINITY;
  data[2][2] = -INFINITY;
  for (int64_t row = 83; row < 90; ++row) data[row][1] = NAN;
  Moments moments(5);
  for (const auto& batch : data.split(7)) moments.add(batch);
  CHECK(moments.skipped() == 10);
  CHECK(moments.count() == 80.0);
  CHECK(relative_error(moments.covariance(), clean.covariance()) < kMomentRounding);

  moments.merge(moments_of(data.narrow(0, 0, 3)));
  CHECK(moments.skipped() == 13);
  CHECK(moments.count() == 80.0);
}

TEST_CASE("constant columns have a variance of exactly zero") {
  torch::manual_seed(11);
  at::Tensor data = correlated_rows(5000, 3).to(at::kFloat);
  data.select(1, 1).fill_(0.1F);
  Moments moments(3);
  for (const auto& batch : data.split(999)) moments.add(batch);
  CHECK(moments.mean()[1].item<double>() == static_cast<double>(0.1F));
  CHECK(moments.covariance()[1].abs().max().item<double>() == 0.0);
  CHECK(moments.covariance()[0][0].item<double>() > 0.0);
}

TEST_CASE("no row and one row have a zero covariance") {
  Moments moments(2);
  moments.add(torch::zeros({0, 2}));
  CHECK(moments.count() == 0.0);
  CHECK(at::equal(moments.covariance(), torch::zeros({2, 2}, torch::kDouble)));
  moments.add(torch::tensor({{3.0, -4.0}}));
  CHECK(moments.count() == 1.0);
  CHECK(at::equal(moments.mean(), torch::tensor({3.0, -4.0}, torch::kDouble)));
  CHECK(at::equal(moments.covariance(), torch::zeros({2, 2}, torch::kDouble)));
}

TEST_CASE("denormal float32 rows are measured, not flushed") {
  torch::manual_seed(12);
  const at::Tensor data = (correlated_rows(200, 3) * 1e-41).to(at::kFloat);
  REQUIRE(data.abs().max().item<float>() < std::numeric_limits<float>::min());
  CHECK(relative_error(moments_of(data).covariance() * 1e80, two_pass_covariance(data.to(at::kDouble) * 1e40)) < 1e-9);
}

TEST_CASE("a copy goes its own way") {
  torch::manual_seed(13);
  Moments moments = moments_of(correlated_rows(20, 3));
  const Moments copy = moments;
  const at::Tensor mean = copy.mean().clone(), covariance = copy.covariance();
  moments.add(correlated_rows(20, 3));
  CHECK(copy.count() == 20.0);
  CHECK(at::equal(copy.mean(), mean));
  CHECK(at::equal(copy.covariance(), covariance));
}

TEST_CASE("moments restored from saved sums go on as if never saved") {
  torch::manual_seed(14);
  const at::Tensor first = correlated_rows(20, 3), second = correlated_rows(30, 3);
  Moments kept = moments_of(first);
  Moments restored(kept.count(), kept.mean().clone(), kept.scatter().clone(), 4);
  kept.add(second);
  restored.add(second);
  CHECK(restored.skipped() == 4);
  CHECK(restored.count() == kept.count());
  CHECK(at::equal(restored.mean(), kept.mean()));
  CHECK(at::equal(restored.scatter(), kept.scatter()));
}

TEST_CASE("rows may be strided and carry gradients, and are left as they were") {
  torch::manual_seed(15);
  const at::Tensor data = correlated_rows(4, 50).requires_grad_();
  const at::Tensor before = data.detach().clone();
  Moments moments;
  moments.add(data.t());
  CHECK(moments.dim() == 4);
  CHECK_FALSE(moments.mean().requires_grad());
  CHECK_FALSE(moments.covariance().requires_grad());
  CHECK(at::equal(data.detach(), before));
  CHECK(relative_error(moments.covariance(), two_pass_covariance(before.t())) < kMomentRounding);
}

TEST_CASE("moments refuse rows, dimensions and sums that break a rule") {
  Moments moments(4);
  CHECK_THROWS_MATCHES(moments.add(torch::zeros({2, 3})), std::invalid_argument,
                       Message("Moments.add: rows must be floating point of shape [*, 4], got Float [2, 3]"));
  CHECK_THROWS_MATCHES(moments.merge(Moments(3)), std::invalid_argument,
                       Message("Moments.merge: dim must be 4, got 3"));
  CHECK_THROWS_MATCHES(Moments(0), std::invalid_argument, Message("Moments.dim must be at least 1, got 0"));
  const at::Tensor mean = torch::zeros({2}, torch::kDouble), scatter = torch::zeros({2, 2}, torch::kDouble);
  CHECK_THROWS_MATCHES(Moments(1.0, mean, mean), std::invalid_argument,
                       Message("Moments.scatter must be floating point of shape [2, 2], got Double [2]"));
  CHECK_THROWS_MATCHES(Moments(-1.0, mean, scatter), std::invalid_argument,
                       Message("Moments.count must be finite and at least 0, got -1"));
  CHECK_THROWS_MATCHES(Moments(1.0, mean, scatter, -2), std::invalid_argument,
                       Message("Moments.skipped must be at least 0, got -2"));
  CHECK_THROWS_MATCHES(Moments(1.0, mean / 0.0, scatter), std::invalid_argument,
                       Message("Moments.mean must be finite, got a NaN or an infinity"));
  CHECK(moments.count() == 0.0);
}

}  // namespace afm::testing
