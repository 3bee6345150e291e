#include "libafm/train/table_optimizer.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include <ATen/ATen.h>

#include "libafm/train/finite_check.h"

namespace afm {
namespace {

using Parts = std::vector<std::shared_ptr<nn::TouchedRows>>;

template <typename Use>
void for_each_row(const Parts& parts, Use use) {
  for (const auto& part : parts) {
    for (const nn::TouchedField& field : part->fields) {
      for (const nn::TouchedRow& row : field.rows) use(row, field.gradient.data() + row.gradient);
    }
  }
}

// Several lookups in one step may read the same rows.
nn::TouchedRows merged(const Parts& parts) {
  nn::TouchedRows sum;
  nn::TouchedField& all = sum.fields.emplace_back();
  std::unordered_map<int64_t, std::size_t> place_of;
  for_each_row(parts, [&](const nn::TouchedRow& row, const float* gradient) {
    const auto [place, is_new] = place_of.try_emplace(row.number, all.rows.size());
    if (is_new) {
      all.rows.push_back(row);
      all.rows.back().gradient = static_cast<int64_t>(all.gradient.size());
      all.gradient.resize(all.gradient.size() + static_cast<std::size_t>(row.size));
    }
    float* to = all.gradient.data() + all.rows[place->second].gradient;
    for (int64_t c = 0; c < row.size; ++c) to[c] += gradient[c];
  });
  return sum;
}

void add_to(const at::Tensor& whole, const Parts& parts) {
  float* to = parts.empty() ? nullptr : whole.mutable_data_ptr<float>();
  for_each_row(parts, [&](const nn::TouchedRow& row, const float* gradient) {
    for (int64_t c = 0; c < row.size; ++c) to[row.start + c] += gradient[c];
  });
}

const at::Tensor& table_of(const nn::EmbeddingImpl& embedding) {
  return embedding.is_dense() ? embedding.weight : embedding.latent;
}

}  // namespace

// What the lookups of the embedding know. A graph that outlives the optimizer may still hold it.
class TableOptimizer::Inbox final : public nn::RowUpdates {
 public:
  explicit Inbox(TableOptimizer* optimizer) : optimizer_(optimizer) {}

  std::shared_ptr<nn::TouchedRows> buffer() override {
    for (auto& kept : buffers_) {
      if (kept.use_count() == 1) return kept;
    }
    return buffers_.emplace_back(std::make_shared<nn::TouchedRows>());
  }
  bool is_behind() const override { return optimizer_ != nullptr && optimizer_->is_behind(); }
  void before_read(const nn::TouchedRows& rows) override {
    if (is_behind()) optimizer_->catch_up(rows);
  }
  void add_gradient(std::shared_ptr<nn::TouchedRows> rows) override {
    if (optimizer_ != nullptr) gradients_.push_back(std::move(rows));
  }

  Parts& gradients() { return gradients_; }
  void close() { optimizer_ = nullptr; }

 private:
  TableOptimizer* optimizer_;
  Parts buffers_, gradients_;
};

TableOptimizer::TableOptimizer(nn::EmbeddingImpl& embedding, std::string name)
    : embedding_(embedding), name_(std::move(name)), table_(table_of(embedding)) {}

TableOptimizer::~TableOptimizer() {
  if (!inbox_) return;
  inbox_->close();
  embedding_.set_row_updates(nullptr);
}

bool TableOptimizer::gives_rows(const nn::EmbeddingImpl& embedding) {
  const at::Tensor& table = table_of(embedding);
  return table.is_cpu() && table.scalar_type() == at::kFloat && table.is_contiguous() &&
         embedding.options.bits == Bits::kFloat;
}

void TableOptimizer::attach() {
  inbox_ = std::make_shared<Inbox>(this);
  embedding_.set_row_updates(inbox_);
}

void TableOptimizer::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  const Parts parts = inbox_ ? std::exchange(inbox_->gradients(), {}) : Parts{};
  if (const at::Tensor& whole = table_.grad(); whole.defined()) {
    add_to(whole, parts);
    step_whole(whole, learning_rate);
  } else if (parts.empty()) {
    step_without_gradient(learning_rate);
  } else if (parts.size() == 1) {
    step_rows(*parts[0], learning_rate);
  } else {
    step_rows(merged(parts), learning_rate);
  }
}

std::string TableOptimizer::parameter_without_finite_gradient() const {
  const auto is_finite = [](const nn::TouchedField& field) { return has_finite_norm(field.gradient); };
  bool finite = !table_.grad().defined() || has_finite_norm(table_.grad());
  if (inbox_) {
    for (const auto& part : inbox_->gradients()) finite = finite && std::ranges::all_of(part->fields, is_finite);
  }
  return finite ? std::string() : name_;
}

void TableOptimizer::zero_grad() {
  if (inbox_) {
    inbox_->gradients().clear();
    table_.mutable_grad() = at::Tensor();
  } else if (table_.grad().defined()) {
    table_.grad().zero_();
  }
}

}  // namespace afm
