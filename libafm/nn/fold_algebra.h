#pragma once

// Private: the identities behind folding, on tensors. An embedding that is factorized gives e_j = basis_j' z_j +
// offset_j for each field j; what is linear in x = [e_1 .. e_F, dense] can read u = [z_1 .. z_F, dense] instead, and so
// can the factorization machine and the cross network of vectors. Everything is float64.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace afm::nn {

// How latents become embeddings, K = k_1 + .. + k_F.
struct Decoder {
  std::vector<at::Tensor> basis = {};  // [F] of [k_j, D]
  at::Tensor offset = {};              // [F, D]
  // The sum of the wide weights is z . wide + wide_offset; undefined unless joint.
  at::Tensor wide = {}, wide_offset = {};  // [K], []
};
int64_t latent_width(const Decoder& decoder);  // K

// y = weight u + bias.
struct Affine {
  at::Tensor weight, bias;  // [m, n], [m]
};
// y = weight x + bias in terms of u: weight [m, F D + Q] -> [m, K + Q]. An undefined bias is zero.
Affine absorb(const Decoder& decoder, const at::Tensor& weight, const at::Tensor& bias);

// basis [k, D], k <= D, = rotation' rows with orthonormal `rows`: latents rotation z and `rows` give what z and `basis`
// gave. `rotation` is upper triangular with no negative diagonal, so a latent of which only the first coordinates are
// not zero stays so, the first k' rows belong to the first k' rows of `basis`, and an orthonormal basis keeps its
// latents.
struct Gauge {
  at::Tensor rows;      // [k, D]
  at::Tensor rotation;  // [k, k]
};
Gauge orthonormal_gauge(const at::Tensor& basis);
// Whether rows are orthonormal up to what `dtype` can hold.
bool has_orthonormal_rows(const at::Tensor& basis, at::ScalarType dtype);

// sum_{i<j} <e_i, e_j> = sum_{i<j} <basis_i' z_i, basis_j' z_j> + z . linear + constant. Any basis.
struct InteractionRest {
  at::Tensor linear;    // [K]
  at::Tensor constant;  // []
};
InteractionRest interaction_rest(const Decoder& decoder);

// The cross network of vectors x_{l+1} = x (x_l . w_l) + b_l + x_l, x_0 = x, with the row v of the linear layer behind:
//   x_L . v = a_L p_L + shift_L,   a_0 = 1,   a_{l+1} = a_l (1 + p_l) + shift_l,   p = weight u + bias
// because x_l = a_l x + B_l, B_l = b_0 + .. + b_{l-1}.
struct CrossOnLatents {
  at::Tensor weight;  // [L + 1, K + Q]
  at::Tensor bias;    // [L + 1]
  at::Tensor shift;   // [L + 1]
};
// weight and bias [L, F D + Q], row [F D + Q].
CrossOnLatents collapse_cross(const Decoder& decoder, const at::Tensor& weight, const at::Tensor& bias,
                              const at::Tensor& row);

// Batch norm in evaluation behind y: (y - mean) / sqrt(variance + eps) * gain + shift = scale y + bias.
struct NormAffine {
  at::Tensor scale, bias;  // [m]
};
NormAffine norm_affine(const at::Tensor& mean, const at::Tensor& variance, double eps, const at::Tensor& gain,
                       const at::Tensor& shift);

}  // namespace afm::nn
