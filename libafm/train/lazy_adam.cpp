#include "libafm/train/lazy_adam.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/nn/embedding_layout.h"
#include "libafm/nn/parallel.h"
#include "libafm/train/optimizer_state.h"

namespace afm {
namespace {

constexpr int64_t kRowsPerTask = 4096;
constexpr int64_t kMostSteps = int64_t{1} << 31;

// Calls use(rows, count) for pieces of the stored rows of the table, on LibTorch's threads.
template <typename Wanted, typename Use>
void for_rows_of_table(const nn::EmbeddingLayout& layout, Wanted wanted, Use use) {
  for (const nn::FieldLayout& field : layout.fields) {
    for (const nn::TierLayout& tier : field.tiers) {
      const int64_t first = field.first_stored + tier.first_stored, size = tier.rank + layout.wide;
      nn::parallel_for_pieces(tier.stored, kRowsPerTask, [&](int64_t begin, int64_t end) {
        std::vector<nn::TouchedRow> rows;
        for (int64_t i = begin; i < end; ++i) {
          if (wanted(first + i)) rows.push_back({first + i, tier.start + i * size, size, 0});
        }
        if (!rows.empty()) use(rows.data(), static_cast<int64_t>(rows.size()));
      });
    }
  }
}

void for_touched_rows(
    const nn::TouchedRows& touched,
    c10::function_ref<void(const nn::TouchedField& field, const nn::TouchedRow* rows, int64_t count)> use) {
  const std::vector<nn::RowPiece> pieces = nn::pieces_of(touched);
  nn::parallel_for_each(static_cast<int64_t>(pieces.size()), [&](int64_t i) {
    const nn::RowPiece& piece = pieces[static_cast<std::size_t>(i)];
    const nn::TouchedField& field = touched.fields[piece.field];
    use(field, field.rows.data() + piece.begin, piece.end - piece.begin);
  });
}

}  // namespace

LazyAdam::LazyAdam(nn::EmbeddingImpl& embedding, std::string name, double l2)
    : TableOptimizer(embedding, std::move(name)),
      l2_(l2),
      mean_(at::zeros_like(table_)),
      square_(at::zeros_like(table_)),
      behind_(at::zeros({embedding.layout().stored_rows}, at::kInt)),
      history_(/*sums=*/l2 == 0) {
  attach();
}

AdamTable LazyAdam::table() const {
  return {table_.mutable_data_ptr<float>(), mean_.mutable_data_ptr<float>(), square_.mutable_data_ptr<float>(),
          behind_.mutable_data_ptr<int32_t>(), static_cast<float>(l2_)};
}

void LazyAdam::catch_up(const nn::TouchedRows& rows) {
  const AdamTable table = this->table();
  for_touched_rows(rows, [&](const nn::TouchedField&, const nn::TouchedRow* piece, int64_t count) {
    afm::catch_up(table, history_, piece, count);
  });
}

void LazyAdam::step_rows(const nn::TouchedRows& rows, double learning_rate) {
  if (is_behind()) catch_up(rows);  // they were when they were read, but for a step that failed in between
  history_.add(learning_rate);
  const AdamTable table = this->table();
  const int64_t steps = history_.steps();
  for_touched_rows(rows, [&](const nn::TouchedField& field, const nn::TouchedRow* piece, int64_t count) {
    afm::step_rows(table, *history_.step(steps), steps, piece, count, field.gradient.data());
  });
}

void LazyAdam::step_whole(const at::Tensor& gradient, double learning_rate) {
  flush();
  history_.add(learning_rate);
  const at::Tensor steps = at::scalar_tensor(history_.steps(), at::kFloat);
  at::_fused_adam_({table_}, {gradient}, {mean_}, {square_}, /*max_exp_avg_sqs=*/{}, {steps}, learning_rate, kAdamBeta1,
                   kAdamBeta2, l2_, kAdamEpsilon, /*amsgrad=*/false, /*maximize=*/false);
  settle();
}

// As in Adam: no step before the first gradient, and afterwards one with a gradient of zero.
void LazyAdam::step_without_gradient(double learning_rate) {
  if (history_.steps() > 0) history_.add(learning_rate);
}

void LazyAdam::settle() {
  behind_.fill_(history_.steps());
  history_.forget();
}

void LazyAdam::flush() {
  if (!is_behind()) return;
  const AdamTable table = this->table();
  const int64_t steps = history_.steps();
  for_rows_of_table(
      embedding_.layout(), [&](int64_t row) { return !owes_nothing(table, row, steps); },
      [&](const nn::TouchedRow* rows, int64_t count) { afm::catch_up(table, history_, rows, count); });
  history_.forget();
}

TensorMap LazyAdam::state() const {
  return {{name_ + ".mean", mean_},
          {name_ + ".square", square_},
          {name_ + ".step", at::scalar_tensor(history_.steps(), at::kFloat)},
          {name_ + ".rows", behind_},
          {name_ + ".rates", at::tensor(history_.rates(), at::kDouble)}};
}

void LazyAdam::load_state(const TensorMap& state, std::string_view where) {
  const at::NoGradGuard no_grad;
  refuse_surplus(state, this->state(), where);
  copy_state(mean_, state, name_ + ".mean", where);
  copy_state(square_, state, name_ + ".square", where);
  const at::Tensor step = at::zeros({}, at::kFloat);
  copy_state(step, state, name_ + ".step", where);
  if (!step.ge(0).logical_and(step.lt(kMostSteps)).item<bool>()) {
    fail<FormatError>("{} has a '{}.step' that is no number of steps", where, name_);
  }
  const auto steps = static_cast<int64_t>(step.item<float>());
  const auto saved = state.find(name_ + ".rates");
  if (saved == state.end()) {
    history_.restore(steps, {});
    return settle();
  }
  const at::Tensor rates = saved->second.to(at::kCPU, at::kDouble).contiguous().view({-1});
  const double* begin = rates.const_data_ptr<double>();
  if (rates.numel() > steps) fail<FormatError>("{} has more of '{}.rates' than steps", where, name_);
  history_.restore(steps, std::vector<double>(begin, begin + rates.numel()));
  copy_state(behind_, state, name_ + ".rows", where);
  check_rows(where);
}

// A row number outside the history would be read out of bounds.
void LazyAdam::check_rows(std::string_view where) const {
  const at::Tensor kept = behind_.ge(history_.first()).logical_and_(behind_.le(history_.steps()));
  const at::Tensor fresh = l2_ == 0 ? behind_.eq(0) : at::zeros_like(kept);
  if (!kept.logical_or(fresh).all().item<bool>()) fail<FormatError>("{} has '{}.rows' of other steps", where, name_);
}

}  // namespace afm
