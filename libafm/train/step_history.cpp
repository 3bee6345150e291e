#include "libafm/train/step_history.h"

#include <algorithm>
#include <cmath>

namespace afm {

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
  MissedSums& sums = sums_[static_cast<std::size_t>(t0 - first_)];
  add_missed(sums, k == 1, u, weight);
  missed_[static_cast<std::size_t>(t0 - first_)] = missed_of(sums);
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
