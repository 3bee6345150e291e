#include "libafm/train/lazy_adam.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "libafm/nn/embedding_layout.h"
#include "libafm/nn/parallel.h"
#include "libafm/train/lazy_adam_state.h"

namespace afm {
namespace {

constexpr int64_t kRowsPerTask = 4096;

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
  return lazy_adam_state(name_, {mean_, square_, behind_, history_.steps(), history_.rates()});
}

void LazyAdam::load_state(const TensorMap& state, std::string_view where) {
  LazyAdamState loaded{mean_, square_, behind_};
  load_lazy_adam_state(state, name_, where, /*fresh_rows=*/l2_ == 0, loaded);
  history_.restore(loaded.steps, loaded.rates);
}

}  // namespace afm
