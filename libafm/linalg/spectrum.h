#pragma once

// Eigenvalues and eigenvectors of a covariance by a symmetric solver (Eigen), never by an SVD: science.md 1.7.7, 5.2.

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace afm {

// A covariance C = V diag(values) V', values descending. CPU, float64.
struct Spectrum {
  at::Tensor values;     // [m], clipped at 0
  at::Tensor vectors;    // [m, m], column i belongs to values[i]; its (first) entry of largest magnitude is positive
  int64_t rank = 0;      // values above 10 m eps of the largest
  double total() const;  // sum of the values: the variance of the vectors
  double discarded(int64_t k) const;    // sum of values[k:]: the least mean squared error at rank k (Theorem 1)
  double kept_energy(int64_t k) const;  // 1 - discarded / total; 1 when total is 0
  int64_t rank_for_energy(double energy) const;  // smallest k with kept_energy(k) >= energy, at most `rank`
};

// covariance [m, m], any device and floating dtype; symmetrised first. Throws std::invalid_argument for a matrix that
// is not square or not finite. An all-zero matrix has rank 0 and the identity as vectors.
Spectrum spectrum_of(const at::Tensor& covariance);

}  // namespace afm
