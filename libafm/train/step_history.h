#pragma once

// Private: the steps of Adam that rows of a table may have missed. No LibTorch.

#include <array>
#include <cstdint>
#include <vector>

#include "libafm/train/missed_steps.h"

namespace afm {

// beta^n for any n >= 0.
class Powers {
 public:
  explicit Powers(double beta);
  double operator()(int64_t n) const {
    const auto high = static_cast<std::size_t>(n) / kLow;
    return high < high_.size() ? low_[static_cast<std::size_t>(n) % kLow] * high_[high] : 0.0;
  }

 private:
  static constexpr std::size_t kLow = 256;
  std::array<double, kLow> low_;
  std::array<double, 1024> high_;
};

// The steps since the oldest one that some row still has before it.
class StepHistory {
 public:
  explicit StepHistory(bool sums) : sums_wanted_(sums) {}

  void add(double learning_rate);
  void forget();  // no row is behind
  void restore(int64_t steps, const std::vector<double>& rates);

  int64_t steps() const { return first_ + static_cast<int64_t>(rates_.size()); }
  int64_t first() const { return first_; }  // steps up to this one are forgotten
  const std::vector<double>& rates() const { return rates_; }

  const AdamStep* step(int64_t t) const { return steps_.data() + (t - first_ - 1); }  // t in (first, steps]
  // Of the steps behind t0, in [max(first, kExactSteps), steps].
  const MissedSteps& missed_since(int64_t t0) const { return missed_[static_cast<std::size_t>(t0 - first_)]; }

 private:
  void add_to(int64_t t0, double size, double root);

  bool sums_wanted_;
  int64_t first_ = 0;
  std::vector<double> rates_;
  std::vector<AdamStep> steps_;
  std::vector<MissedSums> sums_ = {{}};
  std::vector<MissedSteps> missed_ = {{}};
};

}  // namespace afm
