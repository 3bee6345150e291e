#include "libafm/linalg/factors.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "libafm/linalg/eigen_tensor.h"
#include "libafm/linalg/tensor_rules.h"

namespace afm {
namespace {

void require_layer(const char* weight_name, const char* bias_name, const at::Tensor& weight, const at::Tensor& bias) {
  require_floats(weight_name, weight, {-1, -1});
  require_finite(weight_name, weight);
  if (!bias.defined()) return;
  require_floats(bias_name, bias, {weight.size(0)});
  require_finite(bias_name, bias);
}

void require_spectrum(const char* mean_name, const char* vectors_name, const at::Tensor& mean, const Spectrum& spectrum,
                      int64_t dim) {
  require_floats(mean_name, mean, {dim});
  require_finite(mean_name, mean);
  require_floats(vectors_name, spectrum.vectors, {dim, dim});
}

at::Tensor in_float64(const at::Tensor& tensor, at::Device device) { return tensor.detach().to(device, at::kDouble); }

at::Tensor bias_or_zeros(const at::Tensor& bias, const at::Tensor& weight) {
  return bias.defined() ? in_float64(bias, weight.device()) : at::zeros({weight.size(0)}, weight.options());
}

// Always a tensor of its own: factors are trained in place, what they came from must not move.
at::Tensor own_copy(const at::Tensor& values, const at::Tensor& like) {
  return values.to(like.options()).clone(at::MemoryFormat::Contiguous);
}

Factors like_weight(const Factors& factors, const at::Tensor& weight) {
  return {own_copy(factors.down, weight), own_copy(factors.down_bias, weight), own_copy(factors.up, weight),
          own_copy(factors.up_bias, weight)};
}

// The part of `mean` that the columns of `basis` do not reach.
at::Tensor outside_of(const at::Tensor& basis, const at::Tensor& mean) {
  return mean - at::mv(basis, at::mv(basis.t(), mean));
}

void require_metric(const char* what, const OutputMetric& metric, int64_t dim) {
  if (metric.is_plain()) return;
  require_floats(what, metric.root, {dim, dim});
  require_floats(what, metric.inverse, {dim, dim});
}

// y' = basis reader (y - mean) + mean; float64 on the CPU.
struct Projection {
  at::Tensor basis, reader;  // [m, k] with orthonormal columns, [k, m]
};

// Note [Orthonormal up]: M^-1 Q = U R with R upper triangular and a positive diagonal, so that U and R Q' M are the
// same projection in a basis that training and integers can work with, and the first columns of U depend on no later
// one.
Projection projection_on(const Spectrum& spectrum, int64_t k, const OutputMetric& metric) {
  const at::Tensor kept = in_float64(spectrum.vectors, at::kCPU).narrow(1, 0, k);
  if (metric.is_plain() || k == 0) return {kept, kept.t()};
  const auto [q, r] = at::linalg_qr(at::mm(metric.inverse, kept));
  const at::Tensor sign = at::where(r.diagonal() < 0.0, -1.0, 1.0).to(at::kDouble);
  return {q * sign, at::mm(sign.unsqueeze(1) * r, at::mm(kept.t(), metric.root))};
}

struct Pair {
  at::Tensor down, up;  // [k, n], [m, k], float64 on the CPU
};

// An SVD of W itself: the eigenvectors of W'W would lose every singular value below 1e-8 of the largest.
Pair truncated_pair(const at::Tensor& weight, int64_t k) {
  if (k == 0) return {at::zeros({0, weight.size(1)}, at::kDouble), at::zeros({weight.size(0), 0}, at::kDouble)};
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(to_eigen(weight), Eigen::ComputeThinU | Eigen::ComputeThinV);
  const Eigen::MatrixXd left = svd.matrixU().leftCols(k);
  const Eigen::VectorXd scale = svd.singularValues().head(k).cwiseSqrt().cwiseProduct(column_signs(left));
  const Eigen::MatrixXd right = svd.matrixV().leftCols(k);
  return {to_tensor(scale.asDiagonal() * right.transpose()), to_tensor(left * scale.asDiagonal())};
}

}  // namespace

Factors mimic_output(const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& mean, const Spectrum& spectrum,
                     int64_t k, const OutputMetric& metric) {
  const at::NoGradGuard no_grad;
  require_layer("mimic_output: weight", "mimic_output: bias", weight, bias);
  require_spectrum("mimic_output: mean", "mimic_output: spectrum.vectors", mean, spectrum, weight.size(0));
  require_metric("mimic_output: metric", metric, weight.size(0));
  require_rank("mimic_output: k", k, weight.size(0));
  const at::Device device = weight.device();
  const at::Tensor w = in_float64(weight, device);
  const Projection kept = projection_on(spectrum, k, metric);
  const at::Tensor basis = kept.basis.to(device), reader = kept.reader.to(device);
  const at::Tensor centre = in_float64(mean, device);
  const Factors exact{at::mm(reader, w), at::mv(reader, bias_or_zeros(bias, w)), basis,
                      centre - at::mv(basis, at::mv(reader, centre))};
  return like_weight(exact, weight);
}

at::Tensor mimic_reader(const Spectrum& spectrum, int64_t k, const OutputMetric& metric) {
  const at::NoGradGuard no_grad;
  require_floats("mimic_reader: spectrum.vectors", spectrum.vectors, {-1, -1});
  require_metric("mimic_reader: metric", metric, spectrum.vectors.size(0));
  require_rank("mimic_reader: k", k, spectrum.vectors.size(0));
  return projection_on(spectrum, k, metric).reader;
}

Factors truncate_weight(const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& input_mean, int64_t k) {
  const at::NoGradGuard no_grad;
  require_layer("truncate_weight: weight", "truncate_weight: bias", weight, bias);
  require_rank("truncate_weight: k", k, std::min(weight.size(0), weight.size(1)));
  const at::Tensor w = in_float64(weight, at::kCPU);
  const auto [down, up] = truncated_pair(w, k);
  at::Tensor up_bias = bias_or_zeros(bias, w);
  if (input_mean.defined()) {
    require_floats("truncate_weight: input_mean", input_mean, {weight.size(1)});
    require_finite("truncate_weight: input_mean", input_mean);
    up_bias = up_bias + at::mv(w - at::mm(up, down), in_float64(input_mean, at::kCPU));
  }
  return like_weight({down, at::zeros({k}, at::kDouble), up, up_bias}, weight);
}

TableFactors mimic_table(const at::Tensor& table, const at::Tensor& mean, const Spectrum& spectrum, int64_t k,
                         const OutputMetric& metric) {
  const at::NoGradGuard no_grad;
  require_floats("mimic_table: table", table, {-1, -1});
  require_spectrum("mimic_table: mean", "mimic_table: spectrum.vectors", mean, spectrum, table.size(1));
  require_metric("mimic_table: metric", metric, table.size(1));
  require_rank("mimic_table: k", k, table.size(1));
  const Projection kept = projection_on(spectrum, k, metric);
  const at::Tensor basis = kept.basis.to(table.device()), reader = kept.reader.t().to(table.device());
  const at::Tensor centre = in_float64(mean, table.device());
  // basis mean - reader mean; none where both are the same.
  const at::Tensor shift = metric.is_plain() ? at::Tensor() : at::mv(basis.t() - reader.t(), centre);
  at::Tensor latent = at::empty({table.size(0), k}, table.options());
  const int64_t step = rows_per_chunk(table.size(1), table.device());
  for (int64_t start = 0; start < table.size(0); start += step) {
    const int64_t length = std::min(step, table.size(0) - start);
    const at::Tensor rows = in_float64(table.narrow(0, start, length), table.device());
    require_finite("mimic_table: table", rows);
    const at::Tensor values = at::mm(rows, reader);
    latent.narrow(0, start, length).copy_(shift.defined() ? values + shift : values);
  }
  return {latent, own_copy(basis.t(), table), own_copy(outside_of(basis, centre), table)};
}

}  // namespace afm
