#pragma once

// Private: the arithmetic of refits, on moments.

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "libafm/linalg/factors.h"
#include "libafm/linalg/moments.h"
#include "libafm/linalg/output_metric.h"

namespace afm {

struct AffineMap {
  at::Tensor weight;  // [m, n] float64, CPU
  at::Tensor bias;    // [m]
};

// `rows`: moments of [x | y], n + m wide, on the CPU.
// E||M (y - W x - b)||^2.
double affine_error(const Moments& rows, const AffineMap& map, const OutputMetric& metric = {});

// `map` with the bias that gives y its mean.
AffineMap refresh_bias(const Moments& rows, const AffineMap& map);

// The least E||y - W x - b||^2 + rho ||W - start||^2, rho = ridge times the mean variance of x: never worse than
// `start` in the first term, in any metric.
AffineMap ridge_refit(const Moments& rows, const AffineMap& start, double ridge);

// The same among the maps of rank k, in a metric (reduced-rank regression, Izenman 1975), for a `start` of rank k.
Factors rank_refit(const Moments& rows, const AffineMap& start, int64_t k, double ridge, const OutputMetric& metric);

// s = rest + scale part + shift.
struct LogitScale {
  double scale = 1.0, shift = 0.0;
};

// The least mean KL(p || sigmoid(rest + scale part + shift)), by Newton's method from (1, 0), which it is never worse
// than. rest, part: [B] float64; target: [B] logits of p.
LogitScale calibrate_logit(const at::Tensor& rest, const at::Tensor& part, const at::Tensor& target);

}  // namespace afm
