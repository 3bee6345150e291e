#include "libafm/nn/fold_algebra.h"

#include <limits>

#include <ATen/ATen.h>

namespace afm::nn {

int64_t latent_width(const Decoder& decoder) {
  int64_t width = 0;
  for (const at::Tensor& basis : decoder.basis) width += basis.size(0);
  return width;
}

Affine absorb(const Decoder& decoder, const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor wide = weight.to(at::kDouble);
  const int64_t dim = decoder.offset.size(1);
  std::vector<at::Tensor> blocks;
  int64_t column = 0;
  for (const at::Tensor& basis : decoder.basis) {
    blocks.push_back(at::mm(wide.narrow(1, column, dim), basis.to(at::kDouble).t()));
    column += dim;
  }
  const at::Tensor constant = at::mv(wide.narrow(1, 0, column), decoder.offset.to(at::kDouble).flatten());
  blocks.push_back(wide.narrow(1, column, wide.size(1) - column));
  return {at::cat(blocks, 1), bias.defined() ? constant + bias.to(at::kDouble) : constant};
}

Gauge orthonormal_gauge(const at::Tensor& basis) {
  const auto [q, r] = at::linalg_qr(basis.to(at::kDouble).t());  // [D, k], [k, k]
  const at::Tensor sign = at::where(r.diagonal() < 0.0, -at::ones_like(r.diagonal()), at::ones_like(r.diagonal()));
  return {(q * sign).t().contiguous(), r * sign.unsqueeze(1)};
}

bool has_orthonormal_rows(const at::Tensor& basis, at::ScalarType dtype) {
  if (basis.size(0) == 0) return true;
  const double eps = dtype == at::kDouble ? std::numeric_limits<double>::epsilon()
                                          : static_cast<double>(std::numeric_limits<float>::epsilon());
  const at::Tensor rows = basis.to(at::kDouble);
  const at::Tensor distance = at::mm(rows, rows.t()) - at::eye(rows.size(0), rows.options());
  return distance.abs().max().item<double>() <= 64.0 * eps;
}

InteractionRest interaction_rest(const Decoder& decoder) {
  const at::Tensor offset = decoder.offset.to(at::kDouble);
  const at::Tensor sum = offset.sum(0);
  std::vector<at::Tensor> linear;
  for (std::size_t j = 0; j < decoder.basis.size(); ++j) {
    linear.push_back(at::mv(decoder.basis[j].to(at::kDouble), sum - offset[static_cast<int64_t>(j)]));
  }
  return {at::cat(linear), 0.5 * (sum.square().sum() - offset.square().sum())};
}

CrossOnLatents collapse_cross(const Decoder& decoder, const at::Tensor& weight, const at::Tensor& bias,
                              const at::Tensor& row) {
  const at::Tensor rows = at::cat({weight.to(at::kDouble), row.to(at::kDouble).unsqueeze(0)});  // [L + 1, n]
  const at::Tensor sums = at::constant_pad_nd(bias.to(at::kDouble).cumsum(0), {0, 0, 1, 0});    // B_0 .. B_L
  const Affine read = absorb(decoder, rows, {});
  return {read.weight, read.bias, (sums * rows).sum(1)};
}

NormAffine norm_affine(const at::Tensor& mean, const at::Tensor& variance, double eps, const at::Tensor& gain,
                       const at::Tensor& shift) {
  at::Tensor scale = (variance.to(at::kDouble) + eps).rsqrt();
  if (gain.defined()) scale = scale * gain.to(at::kDouble);
  const at::Tensor bias = -mean.to(at::kDouble) * scale;
  return {scale, shift.defined() ? bias + shift.to(at::kDouble) : bias};
}

}  // namespace afm::nn
