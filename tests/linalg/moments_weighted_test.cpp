#include <algorithm>
#include <cmath>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

#include "tests/linalg/random_layers.h"

using Catch::Matchers::Message;

namespace afm::testing {

constexpr double kWeightedRounding = 1e-12;

TEST_CASE("rows weighted by counts equal the rows repeated") {
  torch::manual_seed(GENERATE(range(0, 10)));
  const int64_t rows = random_size(1, 80), dim = random_size(1, 12);
  const at::Tensor table = correlated_rows(rows, dim, 10.0);
  const at::Tensor counts = torch::randint(0, 6, {rows}, torch::kLong);
  Moments weighted(dim), repeated(dim);
  for (int64_t start = 0; start < rows; start += 9) {
    const int64_t length = std::min<int64_t>(9, rows - start);
    weighted.add_weighted(table.narrow(0, start, length), counts.narrow(0, start, length));
  }
  repeated.add(table.repeat_interleave(counts, 0));
  CHECK(weighted.count() == repeated.count());
  CHECK(relative_error(weighted.mean(), repeated.mean()) < kWeightedRounding);
  CHECK((weighted.covariance() - repeated.covariance()).norm().item<double>() <
        kWeightedRounding * (1.0 + repeated.covariance().norm().item<double>()));
}

TEST_CASE("the covariance of a table under its id histogram is that of the looked-up rows") {
  torch::manual_seed(3);
  const at::Tensor table = correlated_rows(300, 12).to(at::kFloat);
  const at::Tensor ids = (300 * torch::rand({5000}).pow(3)).to(at::kLong);
  Moments moments(12);
  moments.add_weighted(table, torch::bincount(ids, {}, 300));
  const at::Tensor looked_up = table.index_select(0, ids).to(at::kDouble);
  CHECK(relative_error(moments.covariance(), two_pass_covariance(looked_up)) < kWeightedRounding);
  CHECK(relative_error(two_pass_covariance(table.to(at::kDouble)), two_pass_covariance(looked_up)) > 0.01);
}

TEST_CASE("a GPU adds up what the CPU does, narrow and wide, with weights and without", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  torch::manual_seed(5);
  for (const int64_t rows : {1, 255, 256, 5000, 700'000}) {
    for (const int64_t dim : {1, 17, 130}) {
      if (rows * dim > 20'000'000) continue;
      INFO(rows << " rows of " << dim);
      const at::Tensor table = correlated_rows(rows, dim, 100.0).to(at::kFloat);
      const at::Tensor weights = torch::randint(0, 3, {rows}, torch::kDouble);
      Moments here(dim), there(dim, at::kCUDA), plain_here(dim), plain_there(dim, at::kCUDA);
      here.add_weighted(table, weights);
      there.add_weighted(table.cuda(), weights);
      plain_here.add(table.to(at::kDouble));
      plain_there.add(table.cuda());
      CHECK(there.count() == here.count());
      CHECK(relative_error(there.mean().cpu(), here.mean()) < kWeightedRounding);
      CHECK((there.covariance().cpu() - here.covariance()).norm().item<double>() <
            kWeightedRounding * (1e-6 + here.covariance().norm().item<double>()));
      CHECK((plain_there.covariance().cpu() - plain_here.covariance()).norm().item<double>() <
            kWeightedRounding * (1e-6 + plain_here.covariance().norm().item<double>()));
    }
  }
}

TEST_CASE("all weights scaled by one factor leave mean and covariance alone") {
  torch::manual_seed(4);
  const at::Tensor rows = correlated_rows(50, 4), weights = torch::rand({50}, torch::kDouble);
  const double scale = GENERATE(1e-30, 3.0, 1e30);
  Moments plain(4), scaled(4);
  plain.add_weighted(rows, weights);
  scaled.add_weighted(rows, weights * scale);
  CHECK(relative_error(scaled.mean(), plain.mean()) < kWeightedRounding);
  CHECK(relative_error(scaled.covariance(), plain.covariance()) < kWeightedRounding);
}

TEST_CASE("rows of weight zero change nothing, even when nothing else is there") {
  torch::manual_seed(5);
  const at::Tensor rows = correlated_rows(20, 3), weights = torch::rand({20}, torch::kDouble);
  Moments moments(3);
  moments.add_weighted(1e6 * rows, torch::zeros({20}));
  CHECK(moments.count() == 0.0);
  CHECK(at::equal(moments.mean(), torch::zeros({3}, torch::kDouble)));
  moments.add_weighted(rows, weights);
  const at::Tensor covariance = moments.covariance();
  moments.add_weighted(1e6 * rows, torch::zeros({20}));
  CHECK(at::equal(moments.covariance(), covariance));
}

TEST_CASE("weighted rows that are not finite are skipped with their weights") {
  torch::manual_seed(6);
  const at::Tensor rows = correlated_rows(20, 3), weights = torch::rand({20}, torch::kDouble);
  Moments clean(3), dirty(3);
  clean.add_weighted(rows.narrow(0, 2, 18), weights.narrow(0, 2, 18));
  at::Tensor spoiled = rows.clone();
  spoiled[0][0] = NAN;
  spoiled[1][2] = INFINITY;
  at::Tensor some_zero = weights.clone();
  some_zero[1] = 0.0;
  dirty.add_weighted(spoiled, some_zero);
  CHECK(dirty.skipped() == 2);
  CHECK(dirty.count() == clean.count());
  CHECK(relative_error(dirty.covariance(), clean.covariance()) < kWeightedRounding);
}

TEST_CASE("weights that are negative, not finite or too few are refused") {
  Moments moments(2);
  const at::Tensor rows = torch::zeros({3, 2});
  CHECK_THROWS_MATCHES(moments.add_weighted(rows, torch::tensor({1.0, -2.0, 1.0})), std::invalid_argument,
                       Message("Moments.add_weighted: weights must be finite and at least 0, got -2"));
  CHECK_THROWS_MATCHES(moments.add_weighted(rows, torch::tensor({1.0F, 1.0F, INFINITY})), std::invalid_argument,
                       Message("Moments.add_weighted: weights must be finite and at least 0, got inf"));
  CHECK_THROWS_MATCHES(moments.add_weighted(rows, torch::tensor({NAN, 1.0F, 1.0F})), std::invalid_argument,
                       Message("Moments.add_weighted: weights must be finite and at least 0, got nan"));
  CHECK_THROWS_MATCHES(moments.add_weighted(rows, torch::ones({2})), std::invalid_argument,
                       Message("Moments.add_weighted: weights must have one entry for each of the 3 rows, got 2"));
  CHECK(moments.count() == 0.0);
}

}  // namespace afm::testing
