#include "libafm/compress/layer_refit.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "libafm/linalg/spectrum.h"

namespace afm {
namespace {

constexpr double kLeastRidge = 1e-12;  // of the mean variance, so that a constant input does no harm
constexpr int kMostSteps = 20;         // of ten times the ridge each
constexpr int kNewtonSteps = 50;
constexpr double kFlat = 1e-12;  // gradient at which Newton's method stops

// The blocks of the moments of [x | y].
struct Blocks {
  at::Tensor mean_x, mean_y, xx, yx, yy;
};

Blocks blocks_of(const Moments& rows, int64_t n) {
  const at::Tensor mean = rows.mean(), covariance = rows.covariance();
  const int64_t m = rows.dim() - n;
  const at::Tensor below = covariance.narrow(0, n, m);
  return {mean.narrow(0, 0, n), mean.narrow(0, n, m), covariance.narrow(0, 0, n).narrow(1, 0, n), below.narrow(1, 0, n),
          below.narrow(1, n, m)};
}

at::Tensor best_bias(const Blocks& blocks, const at::Tensor& weight) {
  return blocks.mean_y - at::mv(weight, blocks.mean_x);
}

struct Ridge {
  at::Tensor weight;      // [m, n] (S_yx + rho start) (S_xx + rho I)^-1
  at::Tensor covariance;  // S_xx + rho I
};

Ridge ridge_of(const Blocks& blocks, const at::Tensor& start, double ridge) {
  const int64_t n = blocks.xx.size(0);
  const double variance = blocks.xx.diagonal().sum().item<double>() / static_cast<double>(n);
  if (!(variance > 0.0)) return {start, blocks.xx};
  double rho = std::max(ridge, kLeastRidge) * variance;
  // Rounding leaves negative eigenvalues in the covariance of inputs that span few directions.
  for (int step = 0; step < kMostSteps; ++step, rho *= 10.0) {
    const at::Tensor covariance = blocks.xx + rho * at::eye(n, at::kDouble);
    const auto [lower, info] = at::linalg_cholesky_ex(covariance);
    if (info.item<int32_t>() != 0) continue;
    return {at::cholesky_solve((blocks.yx + rho * start).t(), lower).t(), covariance};
  }
  return {start, blocks.xx};
}

double mean_loss(const at::Tensor& s, const at::Tensor& p) { return (at::softplus(s) - p * s).mean().item<double>(); }

}  // namespace

double affine_error(const Moments& rows, const AffineMap& map, const OutputMetric& metric) {
  const Blocks blocks = blocks_of(rows, map.weight.size(1));
  const at::Tensor cross = at::mm(map.weight, blocks.yx.t());
  const at::Tensor drift = best_bias(blocks, map.weight) - map.bias;
  const at::Tensor error =
      blocks.yy - cross - cross.t() + at::mm(at::mm(map.weight, blocks.xx), map.weight.t()) + at::outer(drift, drift);
  return metric.is_plain() ? error.diagonal().sum().item<double>() : (metric.squared() * error).sum().item<double>();
}

AffineMap refresh_bias(const Moments& rows, const AffineMap& map) {
  return {map.weight, best_bias(blocks_of(rows, map.weight.size(1)), map.weight)};
}

AffineMap ridge_refit(const Moments& rows, const AffineMap& start, double ridge) {
  const Blocks blocks = blocks_of(rows, start.weight.size(1));
  const at::Tensor weight = ridge_of(blocks, start.weight, ridge).weight;
  return {weight, best_bias(blocks, weight)};
}

// With the penalty the objective is ||M (W - B) (S + rho I)^1/2||^2 and a constant, B the ridge regression: the best W
// of rank k mimics the outputs B x for inputs of covariance S + rho I.
Factors rank_refit(const Moments& rows, const AffineMap& start, int64_t k, double ridge, const OutputMetric& metric) {
  const Blocks blocks = blocks_of(rows, start.weight.size(1));
  const Ridge best = ridge_of(blocks, start.weight, ridge);
  const at::Tensor fitted = at::mm(at::mm(best.weight, best.covariance), best.weight.t());
  return mimic_output(best.weight, best_bias(blocks, best.weight), blocks.mean_y, spectrum_in(metric, fitted), k,
                      metric);
}

LogitScale calibrate_logit(const at::Tensor& rest, const at::Tensor& part, const at::Tensor& target) {
  const at::NoGradGuard no_grad;
  const at::Tensor p = target.sigmoid();
  LogitScale now;
  const auto logit = [&](const LogitScale& at) { return rest + at.scale * part + at.shift; };
  double loss = mean_loss(logit(now), p);
  for (int step = 0; step < kNewtonSteps; ++step) {
    const at::Tensor q = logit(now).sigmoid(), slope = q - p, curve = q * (1.0 - q);
    const double g0 = (slope * part).mean().item<double>(), g1 = slope.mean().item<double>();
    const double h00 = (curve * part * part).mean().item<double>(), h01 = (curve * part).mean().item<double>();
    const double h11 = curve.mean().item<double>(), determinant = h00 * h11 - h01 * h01;
    if (std::abs(g0) + std::abs(g1) < kFlat || !(determinant > 1e-12 * h00 * h11)) break;
    const double d0 = (h11 * g0 - h01 * g1) / determinant, d1 = (h00 * g1 - h01 * g0) / determinant;
    bool better = false;
    for (double length = 1.0; length > 1e-4 && !better; length /= 2) {
      const LogitScale next{now.scale - length * d0, now.shift - length * d1};
      const double next_loss = mean_loss(logit(next), p);
      better = next_loss < loss;
      if (!better) continue;
      loss = next_loss;
      now = next;
    }
    if (!better) break;
  }
  return now;
}

}  // namespace afm
