#include "libafm/nn/embedding_kernels.h"

#include <algorithm>
#include <atomic>

#include "libafm/data/batch.h"
#include "libafm/nn/parallel.h"

namespace afm::nn {
namespace {

constexpr int64_t kRowsPerLookupTask = 128;
// The gradients of basis and offset sum over the whole batch: pieces of it first, so that float sums stay accurate.
constexpr int64_t kRowsPerSum = 64;
constexpr int64_t kOutOfRange = -1;
constexpr int64_t kRowsAhead = 1;          // in a lookup, which takes all fields of a row
constexpr int64_t kGradientRowsAhead = 8;  // in the gradients, which take one field after the other

template <typename Id>
struct Ids {
  explicit Ids(const at::Tensor& ids)
      : data(ids.const_data_ptr<Id>()), rows(ids.size(0)), row_stride(ids.stride(0)), slot_stride(ids.stride(1)) {}
  int64_t at(int64_t row, int64_t slot) const { return data[row * row_stride + slot * slot_stride]; }

  const Id* data;
  int64_t rows, row_stride, slot_stride;
};

bool in_range(const FieldLayout& field, int64_t id) {
  return static_cast<uint64_t>(id) < static_cast<uint64_t>(field.cardinality);
}

template <typename Pointer>
Pointer row_of(const TierLayout& tier, Pointer table, int64_t id) {
  return table + tier.start + (id - tier.first) * tier.stride;
}

// Rows lie anywhere in a table that no cache holds: their loads start some rows of the batch ahead. Inlined by force:
// GCC takes a function that only prefetches for one without effect, and drops the call.
template <int kForWriting, typename Id>
[[gnu::always_inline]] inline void prefetch_field(const FieldLayout& field, bool wide, const Ids<Id>& ids, int64_t row,
                                                  const float* table) {
  constexpr int64_t kFloatsPerLine = 16;
  for (int64_t slot = field.first_slot; slot < field.first_slot + field.slots; ++slot) {
    const int64_t id = ids.at(row, slot);
    if (!in_range(field, id)) continue;
    const TierLayout& tier = field.tier_of(id);
    const float* stored = row_of(tier, table, id);
    const int64_t size = tier.rank + wide;
    for (int64_t c = 0; c < size; c += kFloatsPerLine) __builtin_prefetch(stored + c, kForWriting);
    if (size > 1) __builtin_prefetch(stored + size - 1, kForWriting);
  }
}

// A whole row to values[0, width). Returns its wide weight, 0 without one.
float read_row(const FieldLayout& field, bool wide, const float* table, int64_t id, float* values) {
  const TierLayout& tier = field.tier_of(id);
  const float* stored = row_of(tier, table, id);
  std::copy_n(stored, tier.rank, values);
  std::fill(values + tier.rank, values + field.width, 0.0F);
  return wide ? stored[tier.rank] : 0.0F;
}

struct Mean {
  int64_t filled;  // slots, or kOutOfRange
  float wide;
};

// The mean over the filled slots of one field in one row to values[0, width), zero when there are none.
template <typename Id>
Mean read_mean(const FieldLayout& field, bool wide, const Ids<Id>& ids, int64_t row, const float* table,
               float* values) {
  if (!field.multi) {
    const int64_t id = ids.at(row, field.first_slot);
    if (!in_range(field, id)) return {kOutOfRange, 0.0F};
    return {1, read_row(field, wide, table, id, values)};
  }
  std::fill_n(values, field.width, 0.0F);
  Mean mean{0, 0.0F};
  for (int64_t slot = field.first_slot; slot < field.first_slot + field.slots; ++slot) {
    const int64_t id = ids.at(row, slot);
    if (id == kEmptySlot) continue;
    if (!in_range(field, id)) return {kOutOfRange, 0.0F};
    const TierLayout& tier = field.tier_of(id);
    const float* stored = row_of(tier, table, id);
    for (int64_t c = 0; c < tier.rank; ++c) values[c] += stored[c];
    if (wide) mean.wide += stored[tier.rank];
    ++mean.filled;
  }
  if (mean.filled > 1) {
    const float share = 1.0F / static_cast<float>(mean.filled);
    for (int64_t c = 0; c < field.width; ++c) values[c] *= share;
    mean.wide *= share;
  }
  return mean;
}

// e = offset + sum_c z_c basis_c, zero for a field without a filled slot. Returns the wide weight when joint, else 0.
float expand(const EmbeddingLayout& layout, const LookupInput& input, std::size_t j, const float* latent,
             int64_t filled, float* __restrict values) {
  const int64_t dim = layout.dim, decoded = layout.decoded;
  if (filled == 0) {
    std::fill_n(values, dim, 0.0F);
    return 0;
  }
  const float* basis = input.basis + layout.fields[j].basis_row * decoded;
  const float* offset = input.offset + static_cast<int64_t>(j) * decoded;
  std::copy_n(offset, dim, values);
  for (int64_t c = 0; c < layout.fields[j].width; ++c) {
    for (int64_t d = 0; d < dim; ++d) values[d] += latent[c] * basis[c * decoded + d];
  }
  if (!layout.joint) return 0;
  float wide = offset[dim];
  for (int64_t c = 0; c < layout.fields[j].width; ++c) wide += latent[c] * basis[c * decoded + dim];
  return wide;
}

template <typename Id>
bool lookup_piece(const EmbeddingLayout& layout, const LookupInput& input, const Ids<Id>& ids, int64_t begin,
                  int64_t end, float* values, float* wide) {
  std::vector<float> latent(static_cast<std::size_t>(layout.widest));
  for (int64_t b = begin; b < end; ++b) {
    float sum = 0;
    const int64_t ahead = std::min(b + kRowsAhead, end - 1);
    for (std::size_t j = 0; j < layout.fields.size(); ++j) {
      const FieldLayout& field = layout.fields[j];
      prefetch_field<0>(field, layout.wide, ids, ahead, input.table);
      float* to = values + b * layout.output_width + field.output;
      const Mean mean = read_mean(field, layout.wide, ids, b, input.table, layout.expands ? latent.data() : to);
      if (mean.filled == kOutOfRange) return false;
      sum += mean.wide;
      if (layout.expands) sum += expand(layout, input, j, latent.data(), mean.filled, to);
    }
    if (wide != nullptr) wide[b] = sum;
  }
  return true;
}

template <typename Id>
bool lookup_all(const EmbeddingLayout& layout, const LookupInput& input, float* values, float* wide) {
  const Ids<Id> ids(input.ids);
  std::atomic<bool> valid = true;
  parallel_for_pieces(ids.rows, kRowsPerLookupTask, [&](int64_t begin, int64_t end) {
    if (!lookup_piece(layout, input, ids, begin, end, values, wide)) valid = false;
  });
  return valid;
}

// Gradients of one field, added up in the order of the batch.
template <typename Id>
class FieldGradients {
 public:
  FieldGradients(const EmbeddingLayout& layout, const LookupInput& input, const LookupGradients& gradients,
                 std::size_t j)
      : layout_(layout),
        input_(input),
        gradients_(gradients),
        field_(layout.fields[j]),
        touched_(gradients.touched == nullptr ? nullptr : &gradients.touched->fields[j]),
        ids_(input.ids),
        latent_(static_cast<std::size_t>(field_.width + 1)),
        row_(latent_.size()),
        decoded_(static_cast<std::size_t>(layout.decoded)) {
    if (layout.expands) transpose_basis();
    if (touched_ != nullptr) std::fill(touched_->gradient.begin(), touched_->gradient.end(), 0.0F);
  }

  // basis [k, D (+ 1)] and offset [D (+ 1)] are this field's own, zero at first.
  void run(float* basis, float* offset) {
    for (int64_t begin = 0; begin < ids_.rows; begin += kRowsPerSum) {
      const int64_t end = std::min(begin + kRowsPerSum, ids_.rows);
      for (int64_t b = begin; b < end; ++b) {
        prefetch(std::min(b + kGradientRowsAhead, ids_.rows - 1));
        add_row(b);
      }
      if (layout_.expands) flush(basis, offset);
    }
  }

 private:
  void transpose_basis() {
    const int64_t k = field_.width, decoded = layout_.decoded;
    const float* basis = input_.basis + field_.basis_row * decoded;
    transposed_.resize(static_cast<std::size_t>(k * decoded));
    for (int64_t c = 0; c < k; ++c) {
      for (int64_t d = 0; d < decoded; ++d) transposed_[static_cast<std::size_t>(d * k + c)] = basis[c * decoded + d];
    }
    sums_.assign(static_cast<std::size_t>((k + 1) * decoded), 0.0F);
  }

  [[gnu::always_inline]] void prefetch(int64_t b) const {
    if (gradients_.table != nullptr) prefetch_field<1>(field_, layout_.wide, ids_, b, gradients_.table);
    if (layout_.expands) prefetch_field<0>(field_, layout_.wide, ids_, b, input_.table);
  }

  int64_t filled_slots(int64_t b) const {
    if (!field_.multi) return 1;
    int64_t filled = 0;
    for (int64_t s = 0; s < field_.slots; ++s) filled += ids_.at(b, field_.first_slot + s) != kEmptySlot;
    return filled;
  }

  // The gradient of this field's output, with that of its wide weight when joint; null when it is zero.
  const float* output_gradient(int64_t b) {
    const float* values =
        gradients_.values == nullptr ? nullptr : gradients_.values + b * layout_.output_width + field_.output;
    if (!layout_.joint || !layout_.expands) return values;
    if (values != nullptr) std::copy_n(values, layout_.dim, decoded_.data());  // else they stay zero
    decoded_.back() = gradients_.wide == nullptr ? 0.0F : gradients_.wide[b];
    return decoded_.data();
  }

  void add_row(int64_t b) {
    const int64_t filled = filled_slots(b);
    if (filled == 0) return;
    const float* output = output_gradient(b);
    if (layout_.expands && output != nullptr) sum_basis(b, output);
    if (gradients_.table != nullptr || touched_ != nullptr) scatter(b, output, 1.0F / static_cast<float>(filled));
  }

  void sum_basis(int64_t b, const float* output) {
    const int64_t decoded = layout_.decoded;
    read_mean(field_, layout_.wide, ids_, b, input_.table, latent_.data());
    float* sum = sums_.data();
    for (int64_t c = 0; c < field_.width; ++c, sum += decoded) {
      const float z = latent_[static_cast<std::size_t>(c)];
      for (int64_t d = 0; d < decoded; ++d) sum[d] += z * output[d];
    }
    for (int64_t d = 0; d < decoded; ++d) sum[d] += output[d];
  }

  // The gradient of the mean of the rows: output, or basis output for an expanded one, then wide.
  void row_gradient(int64_t b, const float* output) {
    float* row = row_.data();
    if (output == nullptr || layout_.expands) std::fill_n(row, field_.width, 0.0F);
    if (output != nullptr && !layout_.expands) std::copy_n(output, field_.width, row);
    if (output != nullptr && layout_.expands) {
      for (int64_t d = 0; d < layout_.decoded; ++d) {
        const float* column = transposed_.data() + d * field_.width;
        for (int64_t c = 0; c < field_.width; ++c) row[c] += output[d] * column[c];
      }
    }
    if (layout_.wide) row[field_.width] = gradients_.wide == nullptr ? 0.0F : gradients_.wide[b];
  }

  void scatter(int64_t b, const float* output, float share) {
    row_gradient(b, output);
    const float* __restrict row = row_.data();
    for (int64_t slot = field_.first_slot; slot < field_.first_slot + field_.slots; ++slot) {
      const int64_t id = ids_.at(b, slot);
      if (id == kEmptySlot) continue;
      const TierLayout& tier = field_.tier_of(id);
      float* __restrict to = gradient_of(tier, b, slot, id);
      for (int64_t c = 0; c < tier.rank; ++c) to[c] += share * row[c];
      if (layout_.wide) to[tier.rank] += share * row[field_.width];
    }
  }

  float* gradient_of(const TierLayout& tier, int64_t b, int64_t slot, int64_t id) {
    if (touched_ == nullptr) return row_of(tier, gradients_.table, id);
    const int32_t place = touched_->places[static_cast<std::size_t>((slot - field_.first_slot) * ids_.rows + b)];
    return touched_->gradient.data() + touched_->rows[static_cast<std::size_t>(place)].gradient;
  }

  void flush(float* basis, float* offset) {
    const int64_t size = field_.width * layout_.decoded;
    for (int64_t i = 0; i < size; ++i) basis[i] += sums_[static_cast<std::size_t>(i)];
    for (int64_t d = 0; d < layout_.decoded; ++d) offset[d] += sums_[static_cast<std::size_t>(size + d)];
    std::fill(sums_.begin(), sums_.end(), 0.0F);
  }

  const EmbeddingLayout& layout_;
  const LookupInput& input_;
  const LookupGradients& gradients_;
  const FieldLayout& field_;
  TouchedField* const touched_;  // null: gradients_.table
  const Ids<Id> ids_;
  std::vector<float> latent_, row_;  // the mean row that was read, and its gradient
  std::vector<float> decoded_;       // the gradients of values and wide weight, side by side
  std::vector<float> transposed_;    // basis' [D (+ 1), k]
  std::vector<float> sums_;          // basis and offset over some rows of the batch
};

template <typename Id>
void gradients_of_all(const EmbeddingLayout& layout, const LookupInput& input, const LookupGradients& gradients) {
  const int64_t size = layout.widest * layout.decoded;
  // Fields that share a basis each get their own, added up in their order below.
  std::vector<float> parts(layout.expands ? static_cast<std::size_t>(layout.field_count() * (size + layout.decoded))
                                          : 0);
  parallel_for_each(layout.field_count(), [&](int64_t j) {
    float* part = parts.data() + (layout.expands ? j * (size + layout.decoded) : 0);
    FieldGradients<Id>(layout, input, gradients, static_cast<std::size_t>(j)).run(part, part + size);
  });
  if (!layout.expands) return;
  for (int64_t j = 0; j < layout.field_count(); ++j) {
    const FieldLayout& field = layout.fields[static_cast<std::size_t>(j)];
    const float* part = parts.data() + j * (size + layout.decoded);
    float* basis = gradients.basis + field.basis_row * layout.decoded;
    for (int64_t i = 0; i < field.width * layout.decoded; ++i) basis[i] += part[i];
    std::copy_n(part + size, layout.decoded, gradients.offset + j * layout.decoded);
  }
}

}  // namespace

bool lookup_rows(const EmbeddingLayout& layout, const LookupInput& input, float* values, float* wide) {
  return input.ids.scalar_type() == at::kInt ? lookup_all<int32_t>(layout, input, values, wide)
                                             : lookup_all<int64_t>(layout, input, values, wide);
}

void lookup_gradients(const EmbeddingLayout& layout, const LookupInput& input, const LookupGradients& gradients) {
  input.ids.scalar_type() == at::kInt ? gradients_of_all<int32_t>(layout, input, gradients)
                                      : gradients_of_all<int64_t>(layout, input, gradients);
}

}  // namespace afm::nn
