#include "libafm/linalg/moments.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "libafm/core/fail.h"
#include "libafm/linalg/tensor_rules.h"

namespace afm {
namespace {

void require_sums(double count, const at::Tensor& mean, const at::Tensor& scatter, int64_t skipped) {
  require_floats("Moments.mean", mean, {-1});
  require_floats("Moments.scatter", scatter, {mean.size(0), mean.size(0)});
  require_finite("Moments.mean", mean);
  require_finite("Moments.scatter", scatter);
  if (!(std::isfinite(count) && count >= 0.0)) {
    fail<std::invalid_argument>("Moments.count must be finite and at least 0, got {}", count);
  }
  if (skipped < 0) fail<std::invalid_argument>("Moments.skipped must be at least 0, got {}", skipped);
}

// On the device of the rows, in float64. An undefined tensor stands for weights of one.
at::Tensor checked_weights(const at::Tensor& weights, const at::Tensor& rows) {
  if (!weights.defined() || weights.dim() != 1 || weights.size(0) != rows.size(0)) {
    fail<std::invalid_argument>("Moments.add_weighted: weights must have one entry for each of the {} rows, got {}",
                                rows.size(0), weights.defined() ? weights.numel() : 0);
  }
  const at::Tensor doubles = weights.detach().to(rows.device(), at::kDouble);
  if (!at::logical_and(doubles >= 0.0, doubles.isfinite()).all().item<bool>()) {
    fail<std::invalid_argument>("Moments.add_weighted: weights must be finite and at least 0, got {}",
                                doubles.masked_select(at::logical_and(doubles >= 0.0, doubles.isfinite()).logical_not())
                                    .select(0, 0)
                                    .item<double>());
  }
  return doubles;
}

double total_weight(const at::Tensor& rows, const at::Tensor& weights) {
  return weights.defined() ? weights.sum().item<double>() : static_cast<double>(rows.size(0));
}

constexpr int64_t kNarrow = 128;  // columns below which a product costs little

// Whether the product of centred rows is taken in float32 (and merged in float64): on a CPU it costs half, and rows
// that are float32 themselves have no more to give. The covariance is then off by some 1e-8 of its largest entry.
bool has_float_product(const at::Tensor& rows, const at::Tensor& weights) {
  return rows.is_cpu() && rows.scalar_type() == at::kFloat && rows.size(1) >= kNarrow && !weights.defined();
}

// x' x, [m, m], of many rows of few columns on a GPU: one product with so few results would keep few of the
// multiprocessors busy.
at::Tensor gram_in_parts(const at::Tensor& x) {
  constexpr int64_t kParts = 256;
  const int64_t m = x.size(1), each = x.size(0) / kParts, whole = kParts * each;
  const at::Tensor parts = x.narrow(0, 0, whole).reshape({kParts, each, m}),
                   rest = x.narrow(0, whole, x.size(0) - whole);
  return at::bmm(parts.transpose(1, 2), parts).sum(0).add_(at::mm(rest.t(), rest));
}

// x' x, [m, m]. BLAS's symmetric product is out of reach through ATen; column blocks spare 3/8 of a general one.
at::Tensor gram(const at::Tensor& x) {
  constexpr int64_t kBlocks = 4;
  const int64_t m = x.size(1), width = (m + kBlocks - 1) / kBlocks;
  if (m < kNarrow && !x.is_cpu()) return gram_in_parts(x);
  if (m < kNarrow || !x.is_cpu()) return at::mm(x.t(), x);
  at::Tensor product = at::zeros({m, m}, x.options());
  for (int64_t begin = 0; begin < m; begin += width) {
    const int64_t size = std::min(width, m - begin);
    const at::Tensor block = at::mm(x.narrow(1, begin, size).t(), x.narrow(1, begin, m - begin));
    product.narrow(0, begin, size).narrow(1, begin, m - begin).copy_(block);
  }
  return at::triu(product) + at::triu(product, 1).t();
}

// What float32 products of centred rows can hold: no sum overflows, and what underflows is below rounding.
constexpr double kLeastSum = 1e-20, kLargestSum = 1e30;

at::Tensor scatter_of(const at::Tensor& centred, bool in_float) {
  if (in_float) {
    const at::Tensor product = gram(centred.to(at::kFloat)).to(at::kDouble);
    const double largest = product.diagonal().max().item<double>();
    if (largest > kLeastSum && largest < kLargestSum) return product;
  }
  return gram(centred);
}

at::Tensor weighted_mean(const at::Tensor& rows, const at::Tensor& weights, double total) {
  return weights.defined() ? at::mv(rows.t(), weights).div_(total) : rows.mean(0);
}

}  // namespace

Moments::Moments(int64_t dim, at::Device device) {
  if (dim < 1) fail<std::invalid_argument>("Moments.dim must be at least 1, got {}", dim);
  const auto options = at::TensorOptions(device).dtype(at::kDouble);
  mean_ = at::zeros({dim}, options);
  scatter_ = at::zeros({dim, dim}, options);
}

Moments::Moments(double count, at::Tensor mean, at::Tensor scatter, int64_t skipped)
    : count_(count), skipped_(skipped) {
  const at::NoGradGuard no_grad;
  require_sums(count, mean, scatter, skipped);
  mean_ = mean.detach().to(at::kDouble);
  scatter_ = scatter.detach().to(mean.device(), at::kDouble);
}

int64_t Moments::dim() const { return mean_.defined() ? mean_.size(0) : 0; }

void Moments::add(const at::Tensor& rows) {
  require_floats("Moments.add: rows", rows, {-1, dim() > 0 ? dim() : -1});
  add_in_chunks(rows, {});
}

void Moments::add_weighted(const at::Tensor& rows, const at::Tensor& weights) {
  const at::NoGradGuard no_grad;
  require_floats("Moments.add_weighted: rows", rows, {-1, dim() > 0 ? dim() : -1});
  add_in_chunks(rows, checked_weights(weights, rows));
}

void Moments::merge(const Moments& other) {
  const at::NoGradGuard no_grad;
  if (other.dim() == 0) return;
  if (dim() == 0) *this = Moments(other.dim(), other.mean_.device());
  if (other.dim() != dim()) fail<std::invalid_argument>("Moments.merge: dim must be {}, got {}", dim(), other.dim());
  skipped_ += other.skipped_;
  merge_batch(other.count_, other.mean_, other.scatter_);
}

at::Tensor Moments::covariance() const {
  const at::NoGradGuard no_grad;
  if (count_ == 0.0) return at::zeros_like(scatter_);
  return (scatter_ + scatter_.t()).div_(2.0 * count_);
}

void Moments::add_in_chunks(const at::Tensor& rows, const at::Tensor& weights) {
  const at::NoGradGuard no_grad;
  if (dim() == 0) *this = Moments(rows.size(1), rows.device());
  const int64_t step = rows_per_chunk(dim(), rows.device());
  for (int64_t start = 0; start < rows.size(0); start += step) {
    const int64_t length = std::min(step, rows.size(0) - start);
    add_chunk(rows.detach().narrow(0, start, length),
              weights.defined() ? weights.narrow(0, start, length) : at::Tensor());
  }
}

// Note [Centred moments]: the rows are shifted by the mean so far (at first by one of them), then by what remains of
// their own mean, before anything is squared. The first shift keeps errors relative to the spread, not to the mean, and
// gives a constant column a variance of exactly zero; without the second, one row far from all others would be the
// place that all are measured from. float64 products never use TF32, whatever the settings of the device.
void Moments::add_chunk(const at::Tensor& rows, const at::Tensor& weights) {
  if (rows.size(0) == 0) return;
  const at::Tensor shift = (count_ > 0.0 ? mean_ : rows[0]).to(rows.device(), at::kDouble);
  at::Tensor centred = rows.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true).sub_(shift);
  const double total = total_weight(rows, weights);
  const at::Tensor drift = weighted_mean(centred, weights, total);
  // A NaN or an infinity anywhere shows in the mean of its column: rows are looked at one by one only then.
  if (!drift.isfinite().all().item<bool>() && add_finite_rows(rows, weights)) return;
  if (total == 0.0) return;
  centred.sub_(drift);
  if (weights.defined()) centred.mul_(weights.sqrt().unsqueeze(1));
  merge_batch(total, shift + drift, scatter_of(centred, has_float_product(rows, weights)));
}

// False, and nothing is done, where every row is finite.
bool Moments::add_finite_rows(const at::Tensor& rows, const at::Tensor& weights) {
  const at::Tensor kept = rows.isfinite().all(1).nonzero().squeeze(1);
  if (kept.size(0) == rows.size(0)) return false;
  skipped_ += rows.size(0) - kept.size(0);
  add_chunk(rows.index_select(0, kept), weights.defined() ? weights.index_select(0, kept) : at::Tensor());
  return true;
}

// Chan's formula. Never in place: copies of a Moments share their tensors.
void Moments::merge_batch(double count, const at::Tensor& mean, const at::Tensor& scatter) {
  if (count == 0.0) return;
  const double share = count / (count_ + count);
  const at::Tensor delta = mean.to(mean_.device()) - mean_;
  scatter_ = at::add(scatter_, scatter.to(scatter_.device())).add_(at::outer(delta, delta), count_ * share);
  mean_ = mean_ + delta * share;
  count_ += count;
}

}  // namespace afm
