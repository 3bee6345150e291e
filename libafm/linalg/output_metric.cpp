#include "libafm/linalg/output_metric.h"

#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>

#include "libafm/core/fail.h"
#include "libafm/linalg/tensor_rules.h"

namespace afm {
namespace {

// What stands for a metric of zero: its root and inverse are still far from the ends of float64.
constexpr double kNothing = 1e-60;

at::Tensor from_spectrum(const Spectrum& spectrum, const at::Tensor& values) {
  const at::Tensor product = at::mm(spectrum.vectors * values, spectrum.vectors.t());
  return (product + product.t()) * 0.5;
}

}  // namespace

at::Tensor OutputMetric::squared() const { return is_plain() ? at::Tensor() : at::mm(root, root); }

OutputMetric output_metric(const at::Tensor& gauss_newton, double eps) {
  if (!(eps > 0.0 && eps <= 1.0)) {
    fail<std::invalid_argument>("output_metric: eps must be in (0, 1], got {}", eps);
  }
  const Spectrum spectrum = spectrum_of(gauss_newton);
  const double mean = spectrum.total() / static_cast<double>(spectrum.values.size(0));
  if (!(mean > kNothing)) {
    const at::Tensor unit = at::eye(spectrum.values.size(0), at::kDouble);
    return {unit * std::sqrt(kNothing), unit / std::sqrt(kNothing)};
  }
  const at::Tensor root = (spectrum.values * (1.0 - eps) + eps * mean).sqrt();
  return {from_spectrum(spectrum, root), from_spectrum(spectrum, root.reciprocal())};
}

Spectrum spectrum_in(const OutputMetric& metric, const at::Tensor& covariance) {
  if (metric.is_plain()) return spectrum_of(covariance);
  const int64_t dim = metric.root.size(0);
  require_floats("spectrum_in: covariance", covariance, {dim, dim});
  return spectrum_of(at::mm(at::mm(metric.root, covariance.to(at::kCPU, at::kDouble)), metric.root));
}

}  // namespace afm
