#pragma once

// The norm that errors of a vector are measured in: ||M (y - y')||. With the Gauss-Newton matrix of a loss for M^2,
// half of a squared error is the loss that the error costs, to second order (Botev et al. 2017).

#include <ATen/core/Tensor.h>

#include "libafm/linalg/spectrum.h"

namespace afm {

// Share of the plain squared error that is mixed into a metric, where nothing else is said.
inline constexpr double kMetricEps = 1e-2;

struct OutputMetric {
  at::Tensor root, inverse;  // M and its inverse [m, m], symmetric, CPU, float64; undefined: the plain norm, M = I

  bool is_plain() const { return !root.defined(); }
  at::Tensor squared() const;  // M M [m, m]; undefined when plain
};

// M^2 = (1 - eps) G + eps tr(G) / m I: eps keeps directions without influence in the order of their variance, and eps =
// 1 is the plain norm but for a factor. gauss_newton G [m, m], positive semidefinite up to rounding, symmetrised first.
// A zero matrix gives a norm of (almost) zero. Throws std::invalid_argument for a matrix that is not square or not
// finite and for eps outside (0, 1].
OutputMetric output_metric(const at::Tensor& gauss_newton, double eps = kMetricEps);

// Of M C M, the covariance of M y: what mimic_output() and mimic_table() want for vectors y that are measured in
// `metric`. covariance C [m, m].
Spectrum spectrum_in(const OutputMetric& metric, const at::Tensor& covariance);

}  // namespace afm
