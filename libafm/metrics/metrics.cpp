#include "libafm/metrics/metrics.h"

#include <algorithm>
#include <array>
#include <optional>
#include <stdexcept>
#include <string_view>

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/metrics/scores.h"

namespace afm {
namespace {

// Rows with a label of 0 or 1 as int64, on one device, and whether they are what they should be: numbers there, as each
// look at one makes a GPU wait.
struct Rows {
  at::Tensor logits, clicks;  // [N]
  at::Tensor finite, binary;  // [N] logits that are finite, labels of 0 or 1
  const at::Tensor& labels;
};

Rows rows_of(const at::Tensor& logits, const at::Tensor& labels) {
  if (logits.dim() != 1 || labels.dim() != 1 || logits.sizes() != labels.sizes()) {
    fail<std::invalid_argument>("logits and labels must be vectors of one length, got {} and {}",
                                c10::str(logits.sizes()), c10::str(labels.sizes()));
  }
  if (logits.numel() == 0) fail<DataError>("metrics need at least one row, got none");
  const at::Tensor there = labels.to(logits.device());
  return {logits, there.to(at::kLong), logits.isfinite(), (there == 0).logical_or(there == 1), labels};
}

// Numbers of a device, with one wait for it. Below 2^53 they are exact.
template <typename... Tensors>
auto read(const Tensors&... numbers) {
  const at::Tensor together = at::stack({numbers.to(at::kDouble)...}).cpu();
  std::array<double, sizeof...(numbers)> values;
  std::copy_n(together.template const_data_ptr<double>(), values.size(), values.begin());
  return values;
}

[[noreturn]] void refuse(const at::Tensor& good, const at::Tensor& values, std::string_view name,
                         std::string_view rule) {
  const auto row = good.logical_not().nonzero()[0].item<int64_t>();
  fail<DataError>("the {} of row {} must be {}, got {}", name, row, rule, values[row].item<double>());
}

void check(const Rows& rows, bool finite, bool binary) {
  if (!finite) refuse(rows.finite, rows.logits, "logit", "finite");
  if (!binary) refuse(rows.binary, rows.labels, "label", "0 or 1");
}

// Twice the number of pairs in order: a positive beats the negatives below its group of equal logits and half of those
// within, that is twice those below and once those within. With P the positives and b the rows below a group, the sum
// over all positives of the negatives below (b - P) and of those not above (all but P for each of the negatives).
// Exact: 2^31 rows fit in int64.
at::Tensor twice_the_pairs(const Rows& rows) {
  const int64_t count = rows.logits.numel();
  const auto [sorted, order] = rows.logits.sort();
  const at::Tensor differs = sorted.slice(0, 1).ne(sorted.slice(0, 0, count - 1));
  const at::Tensor first = at::cat({at::ones({1}, differs.options()), differs});  // of each group
  const at::Tensor group = first.cumsum(0) - 1, place = at::arange(count, group.options());
  // As many groups as rows, and one more for what is not the first: their number would have to be waited for.
  const at::Tensor starts = at::empty({count + 1}, group.options()).scatter_(0, at::where(first, group, count), place);
  const at::Tensor below = starts.index_select(0, group);
  const at::Tensor clicks = rows.clicks.index_select(0, order);
  const at::Tensor clicks_below = (clicks.cumsum(0) - clicks).index_select(0, below), clicked = clicks.sum();
  return (clicks * below - clicks_below).sum() + clicked * (count - clicked);
}

// With a label of 0 or 1, softplus(s) - t s = softplus(s (1 - 2 t)), where nothing cancels. By log1p: at::softplus
// turns linear at 20, where float64 still sees the difference.
at::Tensor mean_loss(const Rows& rows) {
  const at::Tensor wrong = rows.logits.to(at::kDouble) * (1 - 2 * rows.clicks);
  return (wrong.clamp_min(0) + wrong.abs().neg().exp().log1p()).mean();
}

double auc_of(double twice, double clicked, int64_t rows) {
  const double skipped = static_cast<double>(rows) - clicked;
  if (clicked == 0 || skipped == 0) {
    fail<DataError>("AUC needs labels of both classes, got {} rows of label {} only", rows, clicked > 0 ? 1 : 0);
  }
  return twice / 2.0 / clicked / skipped;
}

}  // namespace

double auc(const at::Tensor& logits, const at::Tensor& labels) {
  const at::NoGradGuard no_grad;
  const Rows rows = rows_of(logits, labels);
  const auto [finite, binary, clicked, twice] =
      read(rows.finite.all(), rows.binary.all(), rows.clicks.sum(), twice_the_pairs(rows));
  check(rows, finite != 0, binary != 0);
  return auc_of(twice, clicked, logits.numel());
}

double logloss(const at::Tensor& logits, const at::Tensor& labels) {
  const at::NoGradGuard no_grad;
  const Rows rows = rows_of(logits, labels);
  const auto [finite, binary, loss] = read(rows.finite.all(), rows.binary.all(), mean_loss(rows));
  check(rows, finite != 0, binary != 0);
  return loss;
}

std::optional<Quality> quality_of(const Scores& scores) {
  const at::NoGradGuard no_grad;
  const Rows rows = rows_of(scores.logits, scores.labels);
  const auto [finite, binary, clicked, twice, loss] =
      read(rows.finite.all(), rows.binary.all(), rows.clicks.sum(), twice_the_pairs(rows), mean_loss(rows));
  if (finite == 0) return std::nullopt;
  check(rows, true, binary != 0);
  return Quality{.auc = auc_of(twice, clicked, scores.logits.numel()), .logloss = loss};
}

}  // namespace afm
