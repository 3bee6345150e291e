#include "libafm/train/step_history.h"

#include <algorithm>
#include <cmath>

namespace afm {
namespace {

constexpr int64_t kStepsThatCount = 256;  // 0.9^256 = 2e-12

MissedSteps missed_of(double reference, const std::array<double, 5>& power) {
  if (power[0] == 0) return {};
  const double d = power[1] / power[0];  // of the mean from the reference
  const double m2 = power[2] / power[0], m3 = power[3] / power[0], m4 = power[4] / power[0];
  return {static_cast<float>(power[0]), static_cast<float>(reference + d), static_cast<float>(m2 - d * d),
          static_cast<float>(m3 - 3 * d * m2 + 2 * d * d * d),
          static_cast<float>(m4 - 4 * d * m3 + 6 * d * d * m2 - 3 * d * d * d * d)};
}

}  // namespace

Powers::Powers(double beta) {
  for (std::size_t n = 0; n < low_.size(); ++n) low_[n] = std::pow(beta, static_cast<double>(n));
  for (std::size_t n = 0; n < high_.size(); ++n) high_[n] = std::pow(beta, static_cast<double>(n * kLow));
}

void StepHistory::add(double learning_rate) {
  rates_.push_back(learning_rate);
  const auto t = static_cast<double>(steps());
  const double size = learning_rate / (1 - std::pow(kAdamBeta1, t)), root = std::sqrt(1 - std::pow(kAdamBeta2, t));
  steps_.push_back({static_cast<float>(size), static_cast<float>(1 / root)});
  if (!sums_wanted_) return;
  sums_.emplace_back();
  missed_.emplace_back();
  const int64_t oldest = std::max({first_, steps() - kStepsThatCount, std::min(kExactSteps, steps())});
  for (int64_t t0 = oldest; t0 < steps(); ++t0) add_to(t0, size, root);
}

void StepHistory::add_to(int64_t t0, double size, double root) {
  static const Powers mean_decay(kAdamBeta1), root_decay(std::sqrt(kAdamBeta2));
  const int64_t k = steps() - t0;
  const double u = root / root_decay(k), weight = size * mean_decay(k) * u;
  Sums& sums = sums_[static_cast<std::size_t>(t0 - first_)];
  if (k == 1) sums.reference = u;
  double term = weight;
  for (double& power : sums.power) {
    power += term;
    term *= u - sums.reference;
  }
  missed_[static_cast<std::size_t>(t0 - first_)] = missed_of(sums.reference, sums.power);
}

void StepHistory::forget() {
  first_ = steps();
  rates_.clear();
  steps_.clear();
  sums_.assign(1, {});
  missed_.assign(1, {});
}

void StepHistory::restore(int64_t steps, const std::vector<double>& rates) {
  forget();
  first_ = steps - static_cast<int64_t>(rates.size());
  for (const double rate : rates) add(rate);
}

}  // namespace afm
