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

// The mean over the filled slots of one field in one row (zero when there are none), wide weight included, to
// mean[0, stride). Returns the number of filled slots, or kOutOfRange.
template <typename Id>
int64_t read_mean(const FieldLayout& field, const Ids<Id>& ids, int64_t row, const float* table, float* mean) {
  const float* rows = table + field.start;
  if (field.slots == 1) {
    const int64_t id = ids.at(row, field.first_slot);
    if (!in_range(field, id)) return kOutOfRange;
    std::copy_n(rows + id * field.stride, field.stride, mean);
    return 1;
  }
  std::fill_n(mean, field.stride, 0.0F);
  int64_t filled = 0;
  for (int64_t slot = field.first_slot; slot < field.first_slot + field.slots; ++slot) {
    const int64_t id = ids.at(row, slot);
    if (id == kEmptySlot) continue;
    if (!in_range(field, id)) return kOutOfRange;
    for (int64_t c = 0; c < field.stride; ++c) mean[c] += rows[id * field.stride + c];
    ++filled;
  }
  if (filled > 1) {
    const float share = 1.0F / static_cast<float>(filled);
    for (int64_t c = 0; c < field.stride; ++c) mean[c] *= share;
  }
  return filled;
}

// e = offset + sum_c z_c basis_c, zero for a field without a filled slot.
void expand(const EmbeddingLayout& layout, const LookupInput& input, std::size_t j, const float* latent, int64_t filled,
            float* __restrict values) {
  if (filled == 0) {
    std::fill_n(values, layout.dim, 0.0F);
    return;
  }
  const float* basis = input.basis + layout.fields[j].basis_row * layout.dim;
  std::copy_n(input.offset + static_cast<int64_t>(j) * layout.dim, layout.dim, values);
  for (int64_t c = 0; c < layout.fields[j].width; ++c) {
    for (int64_t d = 0; d < layout.dim; ++d) values[d] += latent[c] * basis[c * layout.dim + d];
  }
}

template <typename Id>
bool lookup_piece(const EmbeddingLayout& layout, const LookupInput& input, const Ids<Id>& ids, int64_t begin,
                  int64_t end, float* values, float* wide) {
  std::vector<float> row(static_cast<std::size_t>(layout.widest + 1));
  for (int64_t b = begin; b < end; ++b) {
    float sum = 0;
    for (std::size_t j = 0; j < layout.fields.size(); ++j) {
      const FieldLayout& field = layout.fields[j];
      const int64_t filled = read_mean(field, ids, b, input.table, row.data());
      if (filled == kOutOfRange) return false;
      float* to = values + (b * layout.field_count() + static_cast<int64_t>(j)) * layout.dim;
      if (layout.dense) {
        std::copy_n(row.data(), layout.dim, to);
      } else {
        expand(layout, input, j, row.data(), filled, to);
      }
      if (layout.wide) sum += row[static_cast<std::size_t>(field.width)];
    }
    if (layout.wide) wide[b] = sum;
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
        j_(static_cast<int64_t>(j)),
        field_(layout.fields[j]),
        ids_(input.ids),
        latent_(static_cast<std::size_t>(field_.stride + 1)),
        row_(latent_.size()) {
    if (!layout.dense) transpose_basis();
  }

  // basis [k, D] and offset [D] are this field's own, zero at first.
  void run(float* basis, float* offset) {
    for (int64_t begin = 0; begin < ids_.rows; begin += kRowsPerSum) {
      const int64_t end = std::min(begin + kRowsPerSum, ids_.rows);
      for (int64_t b = begin; b < end; ++b) add_row(b);
      if (!layout_.dense) flush(basis, offset);
    }
  }

 private:
  void transpose_basis() {
    const int64_t k = field_.width, dim = layout_.dim;
    const float* basis = input_.basis + field_.basis_row * dim;
    transposed_.resize(static_cast<std::size_t>(k * dim));
    for (int64_t c = 0; c < k; ++c) {
      for (int64_t d = 0; d < dim; ++d) transposed_[static_cast<std::size_t>(d * k + c)] = basis[c * dim + d];
    }
    sums_.assign(static_cast<std::size_t>((k + 1) * dim), 0.0F);
  }

  int64_t filled_slots(int64_t b) const {
    if (field_.slots == 1) return 1;
    int64_t filled = 0;
    for (int64_t s = 0; s < field_.slots; ++s) filled += ids_.at(b, field_.first_slot + s) != kEmptySlot;
    return filled;
  }

  void add_row(int64_t b) {
    const int64_t filled = filled_slots(b);
    if (filled == 0) return;
    const float* values =
        gradients_.values == nullptr ? nullptr : gradients_.values + (b * layout_.field_count() + j_) * layout_.dim;
    if (!layout_.dense && values != nullptr) sum_basis(b, values);
    if (gradients_.table != nullptr && field_.stride > 0) scatter(b, values, 1.0F / static_cast<float>(filled));
  }

  void sum_basis(int64_t b, const float* values) {
    const int64_t dim = layout_.dim;
    read_mean(field_, ids_, b, input_.table, latent_.data());
    float* sum = sums_.data();
    for (int64_t c = 0; c < field_.width; ++c, sum += dim) {
      const float z = latent_[static_cast<std::size_t>(c)];
      for (int64_t d = 0; d < dim; ++d) sum[d] += z * values[d];
    }
    for (int64_t d = 0; d < dim; ++d) sum[d] += values[d];
  }

  // The gradient of the mean of the rows: values for a dense table, basis values for a factorized one, then wide.
  void row_gradient(int64_t b, const float* values) {
    float* row = row_.data();
    if (values == nullptr || !layout_.dense) std::fill_n(row, field_.stride, 0.0F);
    if (values != nullptr && layout_.dense) std::copy_n(values, layout_.dim, row);
    if (values != nullptr && !layout_.dense) {
      for (int64_t d = 0; d < layout_.dim; ++d) {
        const float* column = transposed_.data() + d * field_.width;
        for (int64_t c = 0; c < field_.width; ++c) row[c] += values[d] * column[c];
      }
    }
    if (layout_.wide) row[field_.width] = gradients_.wide == nullptr ? 0.0F : gradients_.wide[b];
  }

  void scatter(int64_t b, const float* values, float share) {
    row_gradient(b, values);
    const float* __restrict row = row_.data();
    for (int64_t slot = field_.first_slot; slot < field_.first_slot + field_.slots; ++slot) {
      const int64_t id = ids_.at(b, slot);
      if (id == kEmptySlot) continue;
      float* __restrict to = gradients_.table + field_.start + id * field_.stride;
      for (int64_t c = 0; c < field_.stride; ++c) to[c] += share * row[c];
    }
  }

  void flush(float* basis, float* offset) {
    const int64_t size = field_.width * layout_.dim;
    for (int64_t i = 0; i < size; ++i) basis[i] += sums_[static_cast<std::size_t>(i)];
    for (int64_t d = 0; d < layout_.dim; ++d) offset[d] += sums_[static_cast<std::size_t>(size + d)];
    std::fill(sums_.begin(), sums_.end(), 0.0F);
  }

  const EmbeddingLayout& layout_;
  const LookupInput& input_;
  const LookupGradients& gradients_;
  const int64_t j_;
  const FieldLayout& field_;
  const Ids<Id> ids_;
  std::vector<float> latent_, row_;  // the mean row that was read, and its gradient
  std::vector<float> transposed_;    // basis' [D, k]
  std::vector<float> sums_;          // basis and offset over some rows of the batch
};

template <typename Id>
void gradients_of_all(const EmbeddingLayout& layout, const LookupInput& input, const LookupGradients& gradients) {
  const int64_t size = layout.widest * layout.dim;
  // Fields that share a basis each get their own, added up in their order below.
  std::vector<float> parts(layout.dense ? 0 : static_cast<std::size_t>(layout.field_count() * (size + layout.dim)));
  parallel_for_each(layout.field_count(), [&](int64_t j) {
    float* part = parts.data() + (layout.dense ? 0 : j * (size + layout.dim));
    FieldGradients<Id>(layout, input, gradients, static_cast<std::size_t>(j)).run(part, part + size);
  });
  if (layout.dense) return;
  for (int64_t j = 0; j < layout.field_count(); ++j) {
    const FieldLayout& field = layout.fields[static_cast<std::size_t>(j)];
    const float* part = parts.data() + j * (size + layout.dim);
    float* basis = gradients.basis + field.basis_row * layout.dim;
    for (int64_t i = 0; i < field.width * layout.dim; ++i) basis[i] += part[i];
    std::copy_n(part + size, layout.dim, gradients.offset + j * layout.dim);
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
