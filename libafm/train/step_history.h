#pragma once

// Private: what the steps of Adam that a row has missed amount to. No LibTorch.

#include <array>
#include <cstdint>
#include <vector>

namespace afm {

inline constexpr double kAdamBeta1 = 0.9, kAdamBeta2 = 0.999, kAdamEpsilon = 1e-8;

// One step t, from 1: parameter -= size * mean / (sqrt(square) * inverse_root + epsilon).
struct AdamStep {
  float size;          // learning rate / (1 - beta1^t)
  float inverse_root;  // 1 / sqrt(1 - beta2^t)
};

// Note [Missed steps]
// With a gradient of zero, step t0 + k moves a parameter by
//   size_t beta1^k mean / (sqrt(square) beta2^(k/2) inverse_root_t + epsilon) = w_k mean / (sqrt(square) + epsilon u_k)
// with u_k = 1 / (beta2^(k/2) inverse_root_t) and w_k = size_t beta1^k u_k. The w_k fall off as 0.9^k, so that all the
// missed steps together have a mean u and small central moments M_j around it, and with y = sqrt(square) + epsilon u
//   sum_k w_k / (sqrt(square) + epsilon u_k) = (total / y) (1 + sum_{j >= 2} M_j (-epsilon / y)^j).
// Up to j = 4 the error is below 2e-9 of the largest move, once kExactSteps are behind; before them u_k varies too fast
// and steps are taken one by one.
struct MissedSteps {
  float total = 0, u = 0;                       // sum of w_k; mean of u_k, weighted by w_k
  float moment2 = 0, moment3 = 0, moment4 = 0;  // M_2, M_3, M_4
};
inline constexpr int64_t kExactSteps = 128;

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
  struct Sums {
    double reference = 0;  // u_1: sums of powers of u - reference keep their accuracy
    std::array<double, 5> power = {};
  };
  void add_to(int64_t t0, double size, double root);

  bool sums_wanted_;
  int64_t first_ = 0;
  std::vector<double> rates_;
  std::vector<AdamStep> steps_;
  std::vector<Sums> sums_ = {{}};
  std::vector<MissedSteps> missed_ = {{}};
};

}  // namespace afm
