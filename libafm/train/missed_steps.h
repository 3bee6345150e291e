#pragma once

// Private: what the steps of Adam that a row has missed amount to, the same lines for the CPU and for a GPU. No
// LibTorch.

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define AFM_EVERYWHERE __host__ __device__ __forceinline__
#else
#define AFM_EVERYWHERE [[gnu::always_inline]] inline
#endif

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
inline constexpr int64_t kStepsThatCount = 256;  // 0.9^256 = 2e-12: those after them add nothing to the sums

// Sums over the steps behind one t0, of w_k (u_k - reference)^j.
struct MissedSums {
  double reference = 0;  // u_1: sums of powers of u - reference keep their accuracy
  double power[5] = {};
};

AFM_EVERYWHERE MissedSteps missed_of(const MissedSums& sums) {
  const double total = sums.power[0];
  if (total == 0) return {};
  const double d = sums.power[1] / total;  // of the mean from the reference
  const double m2 = sums.power[2] / total, m3 = sums.power[3] / total, m4 = sums.power[4] / total;
  return {static_cast<float>(total), static_cast<float>(sums.reference + d), static_cast<float>(m2 - d * d),
          static_cast<float>(m3 - 3 * d * m2 + 2 * d * d * d),
          static_cast<float>(m4 - 4 * d * m3 + 6 * d * d * m2 - 3 * d * d * d * d)};
}

// Step t0 + k; u = u_k, weight = w_k.
AFM_EVERYWHERE void add_missed(MissedSums& sums, bool is_first, double u, double weight) {
  if (is_first) {
    sums = {};
    sums.reference = u;
  }
  double term = weight;
  for (double& power : sums.power) {
    power += term;
    term *= u - sums.reference;
  }
}

// A step on one value.
AFM_EVERYWHERE void take_step(float& parameter, float& mean, float& square, float gradient, float l2, AdamStep step) {
  constexpr auto kBeta2 = static_cast<float>(kAdamBeta2), kEpsilon = static_cast<float>(kAdamEpsilon);
  constexpr auto kMeanGain = static_cast<float>(1 - kAdamBeta1), kSquareGain = static_cast<float>(1 - kAdamBeta2);
  const float g = gradient + l2 * parameter;
  mean += kMeanGain * (g - mean);
  square = kBeta2 * square + kSquareGain * g * g;
  parameter -= step.size * mean / (std::sqrt(square) * step.inverse_root + kEpsilon);
}

struct AdamDecay {
  float mean, square;  // beta1^n, beta2^n
};

// n missed steps at once.
AFM_EVERYWHERE void skip_steps(float& parameter, float& mean, float& square, const MissedSteps& missed,
                               AdamDecay decay) {
  constexpr auto kEpsilon = static_cast<float>(kAdamEpsilon);
  const float inverse = 1.0F / (std::sqrt(square) + kEpsilon * missed.u);
  const float r = -kEpsilon * inverse;
  const float series = 1.0F + r * r * (missed.moment2 + r * (missed.moment3 + r * missed.moment4));
  parameter -= mean * (missed.total * inverse * series);
  mean *= decay.mean;
  square *= decay.square;
}

}  // namespace afm
