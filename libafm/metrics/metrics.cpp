#include "libafm/metrics/metrics.h"

#include <stdexcept>

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"

namespace afm {
namespace {

// `good` [N] says which rows keep the rule.
void check_rows(const at::Tensor& good, const at::Tensor& values, std::string_view name, std::string_view rule) {
  if (good.all().item<bool>()) return;
  const auto row = good.logical_not().nonzero()[0].item<int64_t>();
  fail<DataError>("the {} of row {} must be {}, got {}", name, row, rule, values[row].item<double>());
}

// The labels as int64 on the logits' device.
at::Tensor checked_labels(const at::Tensor& logits, const at::Tensor& labels) {
  if (logits.dim() != 1 || labels.dim() != 1 || logits.sizes() != labels.sizes()) {
    fail<std::invalid_argument>("logits and labels must be vectors of one length, got {} and {}",
                                c10::str(logits.sizes()), c10::str(labels.sizes()));
  }
  if (logits.numel() == 0) fail<DataError>("metrics need at least one row, got none");
  check_rows(logits.isfinite(), logits, "logit", "finite");
  check_rows((labels == 0).logical_or(labels == 1), labels, "label", "0 or 1");
  return labels.to(logits.device(), at::kLong);
}

// First differences, from 0.
at::Tensor increments(const at::Tensor& running) { return running.diff(1, 0, running.new_zeros({1})); }

}  // namespace

// Counts are exact integers to the end: rows up to 2^31 fit in int64.
double auc(const at::Tensor& logits, const at::Tensor& labels) {
  const at::NoGradGuard no_grad;
  const at::Tensor clicks = checked_labels(logits, labels);
  const auto clicked = clicks.sum().item<int64_t>(), skipped = clicks.numel() - clicked;
  if (clicked == 0 || skipped == 0) {
    fail<DataError>("AUC needs labels of both classes, got {} rows of label {} only", clicks.numel(),
                    clicked > 0 ? 1 : 0);
  }
  const auto [sorted, order] = logits.sort();
  const at::Tensor ties = std::get<2>(at::unique_consecutive(sorted, /*return_inverse=*/false, /*return_counts=*/true));
  const at::Tensor ends = ties.cumsum(0);  // rows up to and with each group of equal logits
  const at::Tensor positives = clicks.index_select(0, order).cumsum(0).index_select(0, ends - 1);
  const at::Tensor negatives = ends - positives;
  // Twice the number of pairs in order: a positive beats the negatives below its group and half of those within.
  const at::Tensor twice = increments(positives) * (2 * negatives - increments(negatives));
  return static_cast<double>(twice.sum().item<int64_t>()) / 2.0 / static_cast<double>(clicked) /
         static_cast<double>(skipped);
}

// With a label of 0 or 1, softplus(s) - t s = softplus(s (1 - 2 t)), where nothing cancels. By log1p: at::softplus
// turns linear at 20, where float64 still sees the difference.
double logloss(const at::Tensor& logits, const at::Tensor& labels) {
  const at::NoGradGuard no_grad;
  const at::Tensor clicks = checked_labels(logits, labels);
  const at::Tensor wrong = logits.to(at::kDouble) * (1 - 2 * clicks);
  return (wrong.clamp_min(0) + wrong.abs().neg().exp().log1p()).mean().item<double>();
}

}  // namespace afm
