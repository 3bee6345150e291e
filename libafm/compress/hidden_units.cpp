#include "libafm/compress/hidden_units.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <tuple>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "libafm/core/fail.h"
#include "libafm/linalg/eigen_tensor.h"
#include "libafm/linalg/spectrum.h"

namespace afm {
namespace {

// A unit with less variance of its own than this share of all is predicted by the others but for rounding; so is a
// direction of their covariance with less than this share of the largest.
constexpr double kOwnVariance = 1e-10, kDirection = 1e-13;
constexpr double kLeastVariance = 1e-300;  // whose inverse is finite

void check_weight(const char* what, const Moments& hidden, const at::Tensor& weight) {
  const bool fits = weight.defined() && weight.is_floating_point() && weight.dim() == 2 && hidden.dim() > 0 &&
                    weight.size(1) == hidden.dim();
  if (fits) return;
  fail<std::invalid_argument>("{} must have one column for each of the {} hidden units", what, hidden.dim());
}

// The residual of the covariance that the units chosen so far do not predict. In Eigen, whose
// calls cost nothing: it takes hundreds of small steps.
class Residual {
 public:
  Residual(const at::Tensor& covariance, const at::Tensor& reader)
      : residual_(to_eigen(covariance)),
        read_(to_eigen(reader) * residual_),
        least_(kOwnVariance * residual_.diagonal().sum()),
        error_(read_.cwiseProduct(to_eigen(reader)).sum()) {}

  double error() const { return error_; }

  // The unit whose choice takes most off the error, and that error; -1 when the units left have no variance of their
  // own.
  int64_t choose_next() {
    int64_t unit = -1;
    double most = -1.0;
    for (int64_t j = 0; j < residual_.cols(); ++j) {
      const double own = residual_(j, j);
      if (!(own > least_)) continue;
      const double gain = read_.col(j).squaredNorm() / own;
      if (gain > most) std::tie(unit, most) = std::pair(j, gain);
    }
    if (unit < 0) return -1;
    remove(unit);
    error_ = std::clamp(error_ - most, 0.0, error_);
    return unit;
  }

 private:
  void remove(int64_t unit) {
    const Eigen::VectorXd column = residual_.col(unit), read = read_.col(unit);
    const Eigen::RowVectorXd share = column.transpose() / residual_(unit, unit);
    residual_.noalias() -= column * share;
    read_.noalias() -= read * share;
    // What rounding leaves of it must not be chosen again.
    residual_.row(unit).setZero();
    residual_.col(unit).setZero();
  }

  Eigen::MatrixXd residual_, read_;  // R [H, H], reader R [m, H]
  double least_, error_;
};

at::Tensor index_of(const std::vector<int64_t>& units) { return at::tensor(units, at::kLong); }

void check_kept(const std::vector<int64_t>& kept, int64_t units) {
  std::vector<int64_t> sorted = kept;
  std::ranges::sort(sorted);
  const bool distinct = std::ranges::adjacent_find(sorted) == sorted.end();
  if (!kept.empty() && distinct && sorted.front() >= 0 && sorted.back() < units) return;
  fail<std::invalid_argument>("the kept units must be different ones in [0, {})", units);
}

at::Tensor inverse_of(const at::Tensor& covariance) {
  const Spectrum spectrum = spectrum_of(covariance);
  const double least = std::max(kDirection * spectrum.values[0].item<double>(), kLeastVariance);
  const at::Tensor inverse = at::where(spectrum.values > least, spectrum.values.reciprocal(), 0.0);
  return at::mm(spectrum.vectors * inverse, spectrum.vectors.t());
}

}  // namespace

HiddenUnits select_units(const Moments& hidden, const at::Tensor& next_weight, const OutputMetric& metric,
                         int64_t most) {
  const at::NoGradGuard no_grad;
  check_weight("select_units: next_weight", hidden, next_weight);
  at::Tensor reader = next_weight.detach().to(at::kCPU, at::kDouble);
  if (!metric.is_plain()) {
    if (metric.root.size(0) != reader.size(0)) {
      fail<std::invalid_argument>("select_units: metric must be of the {} outputs, got {}", reader.size(0),
                                  metric.root.size(0));
    }
    reader = at::mm(metric.root, reader);
  }
  Residual residual(hidden.covariance().cpu(), reader);
  HiddenUnits units{{}, {residual.error()}};
  std::vector<bool> chosen(static_cast<std::size_t>(hidden.dim()), false);
  while (std::ssize(units.order) < most) {
    const int64_t unit = residual.choose_next();
    if (unit < 0) break;
    units.order.push_back(unit);
    units.error.push_back(residual.error());
    chosen[static_cast<std::size_t>(unit)] = true;
  }
  for (std::size_t unit = 0; unit < chosen.size() && std::ssize(units.order) < most; ++unit) {
    if (chosen[unit]) continue;
    units.order.push_back(static_cast<int64_t>(unit));
    units.error.push_back(units.error.back());
  }
  return units;
}

NextLayer refit_next_layer(const Moments& hidden, const at::Tensor& weight, const at::Tensor& bias,
                           const std::vector<int64_t>& kept) {
  const at::NoGradGuard no_grad;
  check_weight("refit_next_layer: weight", hidden, weight);
  check_kept(kept, hidden.dim());
  const at::Tensor w = weight.detach().to(at::kCPU, at::kDouble), index = index_of(kept);
  const at::Tensor covariance = hidden.covariance().cpu(), mean = hidden.mean().cpu();
  const at::Tensor columns = covariance.index_select(1, index);
  const at::Tensor refitted = at::mm(at::mm(w, columns), inverse_of(columns.index_select(0, index)));
  at::Tensor shift = at::mv(w, mean) - at::mv(refitted, mean.index_select(0, index));
  if (bias.defined()) shift = shift + bias.detach().to(at::kCPU, at::kDouble);
  return {refitted.to(weight.options()), shift.to(weight.options())};
}

}  // namespace afm
