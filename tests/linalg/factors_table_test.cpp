#include <cmath>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

#include "libafm/linalg/tensor_rules.h"
#include "tests/linalg/random_layers.h"

using Catch::Matchers::Message;

namespace afm::testing {

constexpr double kTableRounding = 1e-12;

at::Tensor expand(const TableFactors& factors) { return at::mm(factors.latent, factors.basis) + factors.offset; }

// A table with how often each of its rows is looked up.
struct Table {
  at::Tensor rows, counts;
  Moments moments;
  Spectrum spectrum;

  TableFactors mimic(int64_t k) const { return mimic_table(rows, moments.mean(), spectrum, k); }
  double error(const at::Tensor& approximation) const {
    return ((rows - approximation).square().sum(1) * counts).sum().item<double>() / moments.count();
  }
};

Table random_table(int64_t rows, int64_t dim) {
  Table table{correlated_rows(rows, dim), torch::randint(0, 50, {rows}, torch::kLong), Moments(dim), {}};
  table.counts[0] = 1;
  table.moments.add_weighted(table.rows, table.counts);
  table.spectrum = spectrum_of(table.moments.covariance());
  return table;
}

TEST_CASE("the error over the looked-up rows is the sum of the discarded eigenvalues") {
  torch::manual_seed(GENERATE(range(0, 10)));
  const Table table = random_table(random_size(1, 200), random_size(1, 16));
  const int64_t dim = table.rows.size(1);
  for (int64_t k = 0; k <= dim; ++k) {
    const double bound = table.spectrum.discarded(k);
    const double rounding = 1e-13 * table.rows.square().sum().item<double>();
    CHECK(std::abs(table.error(expand(table.mimic(k))) - bound) <= 1e-9 * bound + rounding);
  }
}

TEST_CASE("the counts matter: the factors of uniform ids are worse on the looked-up rows") {
  torch::manual_seed(2);
  const Table table = random_table(100, 8);
  const Moments uniform = moments_of(table.rows);
  const TableFactors other = mimic_table(table.rows, uniform.mean(), spectrum_of(uniform.covariance()), 3);
  CHECK(table.error(expand(table.mimic(3))) < table.error(expand(other)));
}

TEST_CASE("basis rows are orthonormal, the offset is orthogonal to them, the latent is the projection") {
  torch::manual_seed(GENERATE(range(0, 5)));
  const Table table = random_table(60, 9);
  for (int64_t k = 0; k <= 9; ++k) {
    const TableFactors factors = table.mimic(k);
    CHECK((at::mm(factors.basis, factors.basis.t()) - torch::eye(k, torch::kDouble)).abs().sum().item<double>() <
          kTableRounding * 10);
    CHECK(at::mv(factors.basis, factors.offset).abs().sum().item<double>() < kTableRounding * 10);
    CHECK((at::mm(table.rows, factors.basis.t()) - factors.latent).abs().sum().item<double>() < kTableRounding * 100);
  }
}

TEST_CASE("the mean of the looked-up rows is preserved, full width gives the table back, rank 0 its mean") {
  torch::manual_seed(3);
  const Table table = random_table(60, 9);
  Moments moments(9);
  moments.add_weighted(expand(table.mimic(2)), table.counts);
  CHECK(relative_error(moments.mean(), table.moments.mean()) < kTableRounding);
  CHECK(relative_error(expand(table.mimic(9)), table.rows) < kTableRounding);
  CHECK(table.mimic(0).latent.sizes() == at::IntArrayRef({60, 0}));
  CHECK(at::equal(expand(table.mimic(0)), table.moments.mean().expand({60, 9})));
}

TEST_CASE("a float32 table taller than a chunk is projected whole, to float32 rounding") {
  torch::manual_seed(4);
  constexpr int64_t kDim = 200;
  const int64_t rows = 2 * rows_per_chunk(kDim) + 17;
  const at::Tensor table = torch::randn({rows, kDim});
  const Spectrum spectrum = spectrum_of(two_pass_covariance(correlated_rows(300, kDim)));
  const TableFactors factors = mimic_table(table, torch::randn({kDim}), spectrum, 5);
  CHECK(factors.latent.dtype() == torch::kFloat);
  CHECK(factors.basis.dtype() == torch::kFloat);
  CHECK(factors.basis.is_contiguous());
  const at::Tensor wanted = at::mm(table.to(at::kDouble), spectrum.vectors.narrow(1, 0, 5));
  CHECK((factors.latent.to(at::kDouble) - wanted).abs().max().item<double>() < 1e-5);
}

TEST_CASE("an empty table and one that needs gradients are projected like any other") {
  const Spectrum spectrum = spectrum_of(torch::eye(3));
  CHECK(mimic_table(torch::zeros({0, 3}), torch::zeros({3}), spectrum, 2).latent.sizes() == at::IntArrayRef({0, 2}));
  const at::Tensor table = torch::ones({4, 3}).requires_grad_();
  CHECK_FALSE(mimic_table(table, torch::zeros({3}), spectrum, 2).latent.requires_grad());
}

TEST_CASE("table factors refuse a rank, mean or row that breaks a rule") {
  const Spectrum spectrum = spectrum_of(torch::eye(3));
  const at::Tensor table = torch::ones({4, 3}), mean = torch::zeros({3});
  CHECK_THROWS_MATCHES(mimic_table(table, mean, spectrum, 4), std::invalid_argument,
                       Message("mimic_table: k must be in [0, 3], got 4"));
  CHECK_THROWS_MATCHES(mimic_table(table, torch::zeros({2}), spectrum, 1), std::invalid_argument,
                       Message("mimic_table: mean must be floating point of shape [3], got Float [2]"));
  CHECK_THROWS_MATCHES(mimic_table(torch::full({4, 3}, NAN), mean, spectrum, 1), std::invalid_argument,
                       Message("mimic_table: table must be finite, got a NaN or an infinity"));
}

}  // namespace afm::testing
