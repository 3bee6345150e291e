#pragma once

// The rank-k pairs that replace y = W x + b, and the rank-k form of an embedding table. science.md 1.2, 1.3, 1.5.

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "libafm/linalg/output_metric.h"
#include "libafm/linalg/spectrum.h"

namespace afm {

// y' = up (down x + down_bias) + up_bias.
struct Factors {
  at::Tensor down;       // [k, n]
  at::Tensor down_bias;  // [k]
  at::Tensor up;         // [m, k]
  at::Tensor up_bias;    // [m]
};

// Atomic Feature Mimicking: the affine map of rank k with the least mean squared error on the outputs that `spectrum`
// and `mean` describe (Theorem 1). weight [m, n], bias [m] (undefined: zero), mean [m]; computed in float64, returned
// in the dtype and on the device of `weight`. 0 <= k <= m; k = 0 gives the constant `mean`.
//
// With a metric M the error is the mean of ||M (y - y')||^2 and `spectrum` is that of M Cov(y) M (spectrum_in): with
// Q the first k eigenvectors, y' = M^-1 Q Q' M (y - mean) + mean, and the least error is again the sum of the discarded
// eigenvalues (Theorem 1 on M y). The columns of `up` are orthonormal in either case.
Factors mimic_output(const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& mean, const Spectrum& spectrum,
                     int64_t k, const OutputMetric& metric = {});

// What the latent reads of the output: [k, m] with down = reader W, and up reader the projection on the kept
// directions. The transpose of `up` where the metric is plain. CPU, float64.
at::Tensor mimic_reader(const Spectrum& spectrum, int64_t k, const OutputMetric& metric = {});

// The baseline: truncated singular value decomposition of the weight alone, singular values split evenly. With
// input_mean [n] the bias is the best one for that weight (b' = b + (W - W') mean_x); undefined: the bias is kept.
// 0 <= k <= min(m, n).
Factors truncate_weight(const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& input_mean, int64_t k);

// Rows e_v ~ basis' z_v + offset with z_v = basis e_v ("uncentred latent": the offset is orthogonal to the basis).
struct TableFactors {
  at::Tensor latent;  // [N, k]
  at::Tensor basis;   // [k, D], orthonormal rows
  at::Tensor offset;  // [D]
};

// table [N, D], mean [D] and spectrum [D] of its output under the training ids (or uniform ids, for the weight-only
// baseline). Rows are projected in chunks.
//
// With a metric M, measured and `spectrum` as for mimic_output(): z_v = reader (e_v - mean) + basis mean. Basis rows
// are orthonormal and the offset orthogonal to them as ever, and the basis of a lower rank is a prefix of that of a
// higher one.
TableFactors mimic_table(const at::Tensor& table, const at::Tensor& mean, const Spectrum& spectrum, int64_t k,
                         const OutputMetric& metric = {});

}  // namespace afm
