#include "libafm/linalg/spectrum.h"

#include <cmath>
#include <limits>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include "tests/linalg/random_layers.h"

using Catch::Matchers::Message;
using Catch::Matchers::WithinRel;

namespace afm::testing {

constexpr double kSpectrumRounding = 1e-12;

at::Tensor rebuilt(const Spectrum& spectrum) {
  return at::mm(spectrum.vectors * spectrum.values, spectrum.vectors.t());
}

at::Tensor identity(int64_t dim) { return torch::eye(dim, torch::kDouble); }

// Q diag(values) Q' with a random rotation Q.
at::Tensor planted(const at::Tensor& values) {
  const at::Tensor q = std::get<0>(at::linalg_qr(randn({values.size(0), values.size(0)})));
  return at::mm(q * values, q.t());
}

TEST_CASE("eigenvalues descend, eigenvectors are orthonormal, and together they give the covariance back") {
  torch::manual_seed(GENERATE(range(0, 15)));
  const int64_t dim = random_size(1, 60);
  const at::Tensor covariance = two_pass_covariance(correlated_rows(random_size(1, 100), dim));
  const Spectrum spectrum = spectrum_of(covariance);
  CHECK((rebuilt(spectrum) - covariance).norm().item<double>() <= kSpectrumRounding * covariance.norm().item<double>());
  CHECK(relative_error(at::mm(spectrum.vectors.t(), spectrum.vectors), identity(dim)) < kSpectrumRounding);
  CHECK((spectrum.values.diff() <= 0.0).all().item<bool>());
  CHECK((spectrum.values >= 0.0).all().item<bool>());
  CHECK(std::abs(spectrum.total() - covariance.trace().item<double>()) <= kSpectrumRounding * spectrum.total());
}

TEST_CASE("wide covariances have another solver and the same spectrum") {
  torch::manual_seed(6);
  const int64_t dim = GENERATE(511, 512);  // on both sides of where it changes
  at::Tensor values = torch::pow(0.98, torch::arange(dim, torch::kDouble));
  values.narrow(0, 500, dim - 500).zero_();
  const at::Tensor covariance = planted(values);
  const Spectrum spectrum = spectrum_of(covariance);
  CHECK((spectrum.values - values).abs().max().item<double>() < kSpectrumRounding);
  CHECK(spectrum.rank == 500);
  CHECK((rebuilt(spectrum) - covariance).norm().item<double>() <= kSpectrumRounding * covariance.norm().item<double>());
}

TEST_CASE("planted eigenvalues and their number are found") {
  torch::manual_seed(GENERATE(range(0, 10)));
  const int64_t dim = random_size(1, 40), rank = random_size(1, dim);
  at::Tensor values = torch::pow(0.7, torch::arange(dim, torch::kDouble));
  values.narrow(0, rank, dim - rank).zero_();
  const Spectrum spectrum = spectrum_of(planted(values));
  CHECK((spectrum.values - values).abs().max().item<double>() < kSpectrumRounding);
  CHECK(spectrum.rank == rank);
}

TEST_CASE("the entry of largest magnitude of each eigenvector is positive, whatever the solver's sign") {
  torch::manual_seed(4);
  const Spectrum spectrum = spectrum_of(two_pass_covariance(correlated_rows(200, 30)));
  const at::Tensor largest = spectrum.vectors.abs().argmax(0, true);
  CHECK((spectrum.vectors.gather(0, largest) > 0.0).all().item<bool>());
  const at::Tensor tied = torch::tensor({{2.0, -1.0}, {-1.0, 2.0}}, torch::kDouble);
  CHECK((spectrum_of(tied).vectors[0] > 0.0).all().item<bool>());
}

TEST_CASE("a zero covariance has rank 0 and the identity as vectors") {
  const Spectrum spectrum = spectrum_of(torch::zeros({3, 3}));
  CHECK(spectrum.rank == 0);
  CHECK(at::equal(spectrum.values, torch::zeros({3}, torch::kDouble)));
  CHECK(at::equal(spectrum.vectors, identity(3)));
  CHECK(spectrum.total() == 0.0);
  CHECK(spectrum.kept_energy(0) == 1.0);
  CHECK(spectrum.rank_for_energy(1.0) == 0);
}

TEST_CASE("repeated eigenvalues still have orthonormal vectors") {
  torch::manual_seed(5);
  const at::Tensor covariance = planted(torch::tensor({3.0, 3.0, 3.0, 1.0, 1.0, 0.0}, torch::kDouble));
  const Spectrum spectrum = spectrum_of(covariance);
  CHECK(spectrum.rank == 5);
  CHECK(relative_error(rebuilt(spectrum), covariance) < kSpectrumRounding);
  CHECK(relative_error(at::mm(spectrum.vectors.t(), spectrum.vectors), identity(6)) < kSpectrumRounding);
  CHECK(at::equal(spectrum_of(2.0 * identity(4)).values, torch::full({4}, 2.0, torch::kDouble)));
}

TEST_CASE("a negative eigenvalue of round-off is clipped and no part of the rank") {
  const Spectrum spectrum = spectrum_of(torch::tensor({1.0, -1e-17, 1e-17}, torch::kDouble).diag());
  CHECK(spectrum.rank == 1);
  CHECK(spectrum.values.min().item<double>() == 0.0);
  CHECK(relative_error(at::mm(spectrum.vectors.t(), spectrum.vectors), identity(3)) < kSpectrumRounding);
}

TEST_CASE("the rank rule has its cut at 10 m eps of the largest eigenvalue") {
  const double cut = 10.0 * 2.0 * std::numeric_limits<double>::epsilon();
  CHECK(spectrum_of(torch::tensor({1.0, 2.0 * cut}, torch::kDouble).diag()).rank == 2);
  CHECK(spectrum_of(torch::tensor({1.0, 0.5 * cut}, torch::kDouble).diag()).rank == 1);
}

TEST_CASE("the scale of a covariance does not matter, from denormal to huge") {
  torch::manual_seed(6);
  const at::Tensor covariance = planted(torch::tensor({4.0, 1.0, 0.25, 0.0}, torch::kDouble));
  const double scale = GENERATE(1e-300, 1e-40, 1e300);
  const Spectrum spectrum = spectrum_of(covariance * scale);
  CHECK(relative_error(spectrum.values / scale, spectrum_of(covariance).values) < kSpectrumRounding);
  CHECK(spectrum.rank == 3);
  const Spectrum denormal = spectrum_of(torch::tensor({4e-320, 1e-320}, torch::kDouble).diag());
  CHECK(at::equal(denormal.vectors, identity(2)));
}

TEST_CASE("float32 and asymmetric matrices are taken in float64 and symmetrised") {
  const at::Tensor lopsided = torch::tensor({{2.0, 1.0}, {0.0, 2.0}});
  const Spectrum spectrum = spectrum_of(lopsided.requires_grad_());
  CHECK(spectrum.values.dtype() == torch::kDouble);
  CHECK_FALSE(spectrum.values.requires_grad());
  CHECK_THAT(spectrum.values[0].item<double>(), WithinRel(2.5, kSpectrumRounding));
  CHECK_THAT(spectrum.values[1].item<double>(), WithinRel(1.5, kSpectrumRounding));
}

TEST_CASE("discarded and kept energy follow the eigenvalues") {
  const Spectrum spectrum = spectrum_of(torch::tensor({1.0, 4.0, 0.0, 3.0}, torch::kDouble).diag());
  CHECK(spectrum.total() == 8.0);
  CHECK(spectrum.discarded(0) == 8.0);
  CHECK(spectrum.discarded(1) == 4.0);
  CHECK(spectrum.discarded(2) == 1.0);
  CHECK(spectrum.discarded(4) == 0.0);
  CHECK(spectrum.kept_energy(0) == 0.0);
  CHECK(spectrum.kept_energy(2) == 0.875);
  CHECK(spectrum.kept_energy(4) == 1.0);
  CHECK(spectrum.rank_for_energy(0.0) == 0);
  CHECK(spectrum.rank_for_energy(0.5) == 1);
  CHECK(spectrum.rank_for_energy(0.51) == 2);
  CHECK(spectrum.rank_for_energy(1.0) == 3);
}

TEST_CASE("the rank for an energy is the smallest that keeps it, at most the rank") {
  torch::manual_seed(GENERATE(range(0, 10)));
  const Spectrum spectrum = spectrum_of(two_pass_covariance(correlated_rows(15, 20)));
  REQUIRE(spectrum.rank < 20);
  for (const double energy : {0.1, 0.5, 0.9, 0.99, 0.999999, 1.0}) {
    const int64_t k = spectrum.rank_for_energy(energy);
    CHECK((k == spectrum.rank || spectrum.kept_energy(k) >= energy));
    CHECK((k == 0 || spectrum.kept_energy(k - 1) < energy));
  }
  for (int64_t k = 0; k <= spectrum.rank; ++k) CHECK(spectrum.rank_for_energy(spectrum.kept_energy(k)) <= k);
}

TEST_CASE("matrices, ranks and energies that break a rule are refused") {
  CHECK_THROWS_MATCHES(spectrum_of(torch::zeros({2, 3})), std::invalid_argument,
                       Message("spectrum_of: covariance must be square and not empty, got [2, 3]"));
  CHECK_THROWS_MATCHES(spectrum_of(torch::zeros({0, 0})), std::invalid_argument,
                       Message("spectrum_of: covariance must be square and not empty, got [0, 0]"));
  CHECK_THROWS_MATCHES(spectrum_of(torch::zeros({4})), std::invalid_argument,
                       Message("spectrum_of: covariance must be floating point of shape [*, *], got Float [4]"));
  CHECK_THROWS_MATCHES(spectrum_of(torch::full({2, 2}, NAN)), std::invalid_argument,
                       Message("spectrum_of: covariance must be finite, got a NaN or an infinity"));
  const Spectrum spectrum = spectrum_of(identity(2));
  CHECK_THROWS_MATCHES(spectrum.discarded(3), std::invalid_argument,
                       Message("Spectrum.discarded: k must be in [0, 2], got 3"));
  CHECK_THROWS_MATCHES(spectrum.kept_energy(-1), std::invalid_argument,
                       Message("Spectrum.kept_energy: k must be in [0, 2], got -1"));
  CHECK_THROWS_MATCHES(spectrum.rank_for_energy(1.5), std::invalid_argument,
                       Message("Spectrum.rank_for_energy: energy must be in [0, 1], got 1.5"));
  CHECK_THROWS_MATCHES(spectrum.rank_for_energy(NAN), std::invalid_argument,
                       Message("Spectrum.rank_for_energy: energy must be in [0, 1], got nan"));
}

}  // namespace afm::testing
