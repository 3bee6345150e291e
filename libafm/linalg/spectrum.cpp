#include "libafm/linalg/spectrum.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <vector>

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/linalg/eigen_tensor.h"
#include "libafm/linalg/tensor_rules.h"

namespace afm {
namespace {

int64_t numerical_rank(const Eigen::VectorXd& values) {
  const double noise = 10.0 * static_cast<double>(values.size()) * std::numeric_limits<double>::epsilon() * values(0);
  return (values.array() > noise).count();
}

// Ascending values, and vectors as columns. LAPACK's divide and conquer is several times as fast for wide layers.
struct Eigensystem {
  Eigen::VectorXd values;
  Eigen::MatrixXd vectors;
};
constexpr int64_t kWide = 512;

Eigensystem eigensystem_of(const Eigen::MatrixXd& symmetric) {
  const auto dim = static_cast<int64_t>(symmetric.rows());
  if (dim >= kWide) {
    const auto [values, vectors] = at::linalg_eigh(to_tensor(symmetric));
    return {to_eigen(values.unsqueeze(1)), to_eigen(vectors)};
  }
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(symmetric);
  if (solver.info() != Eigen::Success)
    fail<Error>("spectrum_of: the eigenvalues of a [{0}, {0}] matrix did not converge", dim);
  return {solver.eigenvalues(), solver.eigenvectors()};
}

Spectrum zero_spectrum(int64_t dim) { return {at::zeros({dim}, at::kDouble), at::eye(dim, at::kDouble), 0}; }

// The sum of values[k:] for every k in 0..m, the smallest values first: the one order in which it is added up anywhere.
std::vector<double> tail_sums(const at::Tensor& values) {
  const auto value = values.accessor<double, 1>();
  std::vector<double> sums(static_cast<size_t>(value.size(0)) + 1, 0.0);
  for (int64_t i = value.size(0) - 1; i >= 0; --i) {
    sums[static_cast<size_t>(i)] = sums[static_cast<size_t>(i) + 1] + value[i];
  }
  return sums;
}

double kept_share(double discarded, double total) { return total == 0.0 ? 1.0 : 1.0 - discarded / total; }

}  // namespace

double Spectrum::total() const { return tail_sums(values).front(); }

double Spectrum::discarded(int64_t k) const {
  require_rank("Spectrum.discarded: k", k, values.size(0));
  return tail_sums(values)[static_cast<size_t>(k)];
}

double Spectrum::kept_energy(int64_t k) const {
  require_rank("Spectrum.kept_energy: k", k, values.size(0));
  return kept_share(discarded(k), total());
}

int64_t Spectrum::rank_for_energy(double energy) const {
  if (!(energy >= 0.0 && energy <= 1.0)) {
    fail<std::invalid_argument>("Spectrum.rank_for_energy: energy must be in [0, 1], got {}", energy);
  }
  const std::vector<double> sums = tail_sums(values);
  const auto enough = [&](double discarded) { return kept_share(discarded, sums.front()) >= energy; };
  const int64_t smallest = std::find_if(sums.begin(), sums.end(), enough) - sums.begin();
  return std::min(smallest, rank);
}

Spectrum spectrum_of(const at::Tensor& covariance) {
  require_floats("spectrum_of: covariance", covariance, {-1, -1});
  const int64_t dim = covariance.size(0);
  if (dim == 0 || covariance.size(1) != dim) {
    fail<std::invalid_argument>("spectrum_of: covariance must be square and not empty, got [{}, {}]", dim,
                                covariance.size(1));
  }
  require_finite("spectrum_of: covariance", covariance);
  const Eigen::MatrixXd given = to_eigen(covariance);
  const Eigen::MatrixXd symmetric = 0.5 * given + 0.5 * given.transpose();
  if (symmetric.isZero(0.0)) return zero_spectrum(dim);
  const Eigensystem system = eigensystem_of(symmetric);
  const Eigen::VectorXd values = system.values.reverse().cwiseMax(0.0);
  const Eigen::MatrixXd vectors = system.vectors.rowwise().reverse();
  return {to_tensor(values).squeeze(1), to_tensor(vectors * column_signs(vectors).asDiagonal()),
          numerical_rank(values)};
}

}  // namespace afm
