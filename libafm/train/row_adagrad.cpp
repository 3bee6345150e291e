#include "libafm/train/row_adagrad.h"

#include <cmath>
#include <utility>

#include <ATen/ATen.h>

#include "libafm/nn/cpu_kernels.h"
#include "libafm/nn/embedding_layout.h"
#include "libafm/nn/parallel.h"
#include "libafm/train/optimizer_state.h"

namespace afm {
namespace {

constexpr double kAdagradEpsilon = 1e-8;

// size values with one sum of squares.
[[gnu::always_inline]] inline void step_values(float* __restrict values, const float* __restrict gradient, int64_t size,
                                               float l2, float rate, float& sum) {
  float squares = 0;
  for (int64_t c = 0; c < size; ++c) {
    const float g = gradient[c] + l2 * values[c];
    squares += g * g;
  }
  if (squares == 0) return;
  sum += squares / static_cast<float>(size);
  const float step = rate / (std::sqrt(sum) + static_cast<float>(kAdagradEpsilon));
  for (int64_t c = 0; c < size; ++c) values[c] -= step * (gradient[c] + l2 * values[c]);
}

struct AdagradTable {
  float *parameters, *sums;
  int64_t wide;  // 1 or 0
  float l2, rate;
};

AFM_VECTORIZED void step_piece(const AdagradTable& table, const nn::TouchedRow* rows, int64_t count,
                               const float* gradients) {
  for (int64_t i = 0; i < count; ++i) {
    const nn::TouchedRow& row = rows[i];
    float* values = table.parameters + row.start;
    float* sums = table.sums + row.number * (1 + table.wide);
    const float* gradient = gradients + row.gradient;
    const int64_t size = row.size - table.wide;
    step_values(values, gradient, size, table.l2, table.rate, sums[0]);
    if (table.wide != 0) step_values(values + size, gradient + size, 1, table.l2, table.rate, sums[1]);
  }
}

// The same on columns [n, c] with sums [n].
void step_columns(const at::Tensor& values, const at::Tensor& gradient, const at::Tensor& sums, double l2,
                  double rate) {
  if (values.size(1) == 0) return;
  const at::Tensor g = l2 == 0 ? gradient : gradient.add(values, l2).mul_(gradient.ne(0).any(1, /*keepdim=*/true));
  sums.add_(g.square().mean(1));
  values.sub_(g.mul(sums.sqrt().add_(kAdagradEpsilon).reciprocal_().mul_(rate).unsqueeze(1)));
}

}  // namespace

RowAdagrad::RowAdagrad(nn::EmbeddingImpl& embedding, std::string name, double l2, double scale)
    : TableOptimizer(embedding, std::move(name)),
      l2_(l2),
      scale_(scale),
      sum_(at::zeros({embedding.layout().stored_rows, 1 + embedding.layout().wide}, table_.options())) {
  if (gives_rows(embedding)) attach();
}

void RowAdagrad::step_rows(const nn::TouchedRows& touched, double learning_rate) {
  const AdagradTable table{table_.mutable_data_ptr<float>(), sum_.mutable_data_ptr<float>(), embedding_.layout().wide,
                           static_cast<float>(l2_), static_cast<float>(learning_rate * scale_)};
  const std::vector<nn::RowPiece> pieces = nn::pieces_of(touched);
  nn::parallel_for_each(static_cast<int64_t>(pieces.size()), [&](int64_t i) {
    const nn::RowPiece& piece = pieces[static_cast<std::size_t>(i)];
    const nn::TouchedField& field = touched.fields[piece.field];
    step_piece(table, field.rows.data() + piece.begin, piece.end - piece.begin, field.gradient.data());
  });
}

void RowAdagrad::step_whole(const at::Tensor& gradient, double learning_rate) {
  const nn::EmbeddingLayout& layout = embedding_.layout();
  const at::Tensor values = table_.view({-1}), gradients = gradient.view({-1});
  for (const nn::FieldLayout& field : layout.fields) {
    for (const nn::TierLayout& tier : field.tiers) {
      const int64_t size = tier.rank + layout.wide;
      const auto rows_of = [&](const at::Tensor& flat) {
        return flat.narrow(0, tier.start, tier.stored * size).view({tier.stored, size});
      };
      const at::Tensor sums = sum_.narrow(0, field.first_stored + tier.first_stored, tier.stored);
      const auto step = [&](int64_t first, int64_t count, int64_t column) {
        step_columns(rows_of(values).narrow(1, first, count), rows_of(gradients).narrow(1, first, count),
                     sums.select(1, column), l2_, learning_rate * scale_);
      };
      step(0, tier.rank, 0);
      if (layout.wide) step(tier.rank, 1, 1);
    }
  }
}

TensorMap RowAdagrad::state() const { return {{name_ + ".sum", sum_}}; }

void RowAdagrad::load_state(const TensorMap& state, std::string_view where) {
  const at::NoGradGuard no_grad;
  copy_state(sum_, state, name_ + ".sum", where);
  refuse_surplus(state, this->state(), where);
}

}  // namespace afm
