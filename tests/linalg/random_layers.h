#pragma once

// Random layers with correlated inputs of non-zero mean, and the float64 references that the tests of this room share.

#include <cstdint>

#include <torch/torch.h>

#include "libafm/linalg/factors.h"
#include "libafm/linalg/moments.h"
#include "libafm/linalg/spectrum.h"
#include "tests/linalg/relative_error.h"

namespace afm::testing {

inline at::Tensor randn(at::IntArrayRef shape) { return torch::randn(shape, torch::kDouble); }

inline int64_t random_size(int64_t least, int64_t most) { return torch::randint(least, most + 1, {1}).item<int64_t>(); }

// Standard deviations fall by `decay` from column to column before they are mixed; means are about `offset` times
// larger.
inline at::Tensor correlated_rows(int64_t rows, int64_t dim, double offset = 2.0, double decay = 0.8) {
  const at::Tensor scale = torch::pow(decay, torch::arange(dim, torch::kDouble));
  return at::mm(randn({rows, dim}) * scale, randn({dim, dim})) + offset * randn({dim});
}

inline double squared_error(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).square().sum().item<double>() / static_cast<double>(a.size(0));
}

inline at::Tensor two_pass_covariance(const at::Tensor& rows) {
  const at::Tensor centred = rows - rows.mean(0);
  return at::mm(centred.t(), centred) / rows.size(0);
}

inline at::Tensor apply(const Factors& factors, const at::Tensor& rows) {
  return at::mm(at::mm(rows, factors.down.t()) + factors.down_bias, factors.up.t()) + factors.up_bias;
}

inline Moments moments_of(const at::Tensor& rows) {
  Moments moments(rows.size(1));
  moments.add(rows);
  return moments;
}

// A layer y = W x + b with its calibration sample.
struct Layer {
  at::Tensor weight, bias, inputs, outputs;
  Moments moments;
  Spectrum spectrum;

  Factors mimic(int64_t k) const { return mimic_output(weight, bias, moments.mean(), spectrum, k); }
};

inline Layer layer_on(const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& inputs) {
  const at::Tensor outputs = at::mm(inputs, weight.t()) + bias;
  const Moments moments = moments_of(outputs);
  return {weight, bias, inputs, outputs, moments, spectrum_of(moments.covariance())};
}

inline Layer random_layer(int64_t m, int64_t n, int64_t rows) {
  return layer_on(randn({m, n}), randn({m}), correlated_rows(rows, n));
}

// Both narrow and wide layers: m from 1 to 24, n from 1 to 24.
inline Layer random_layer() { return random_layer(random_size(1, 24), random_size(1, 24), random_size(60, 300)); }

}  // namespace afm::testing
