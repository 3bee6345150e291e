#include "libafm/nn/touched_rows.h"

#include <algorithm>
#include <atomic>
#include <bit>

#include "libafm/data/batch.h"
#include "libafm/nn/parallel.h"

namespace afm::nn {
namespace {

constexpr int32_t kFree = -1, kNoRow = -1;
constexpr int64_t kRowsPerPiece = 128;

// Finds the index of a row that was seen before: open addressing, or the row's number itself where that is not larger.
class RowIndex {
 public:
  RowIndex(int64_t stored, int64_t entries, std::vector<int32_t>& slots) : slots_(slots) {
    const auto capacity = std::bit_ceil(static_cast<uint64_t>(2 * std::max<int64_t>(entries, 1)));
    direct_ = static_cast<uint64_t>(stored) <= capacity;
    shift_ = 64 - std::countr_zero(capacity);
    mask_ = capacity - 1;
    slots_.assign(direct_ ? static_cast<std::size_t>(stored) : capacity, kFree);
  }

  // Where the index of `row` is or belongs; `same(index)` tells whether an index is that of this row.
  template <typename Same>
  int32_t& find(int64_t row, Same same) {
    if (direct_) return slots_[static_cast<std::size_t>(row)];
    uint64_t at = (static_cast<uint64_t>(row) * 0x9E3779B97F4A7C15ULL) >> shift_;
    while (slots_[at] != kFree && !same(slots_[at])) at = (at + 1) & mask_;
    return slots_[at];
  }

 private:
  std::vector<int32_t>& slots_;
  bool direct_;
  int shift_;
  uint64_t mask_;
};

class FieldSearch {
 public:
  FieldSearch(const EmbeddingLayout& layout, const FieldLayout& field, int64_t entries, TouchedField& touched)
      : wide_(layout.wide), field_(field), touched_(touched), index_(field.stored_rows(), entries, touched.table) {
    touched_.rows.clear();
    touched_.places.resize(static_cast<std::size_t>(entries));
  }

  // False when an id is out of range.
  template <typename Id>
  bool run(const at::Tensor& ids) {
    int32_t* place = touched_.places.data();
    for (int64_t slot = field_.first_slot; slot < field_.first_slot + field_.slots; ++slot) {
      const Id* id = ids.const_data_ptr<Id>() + slot * ids.stride(1);
      for (int64_t b = 0; b < ids.size(0); ++b, ++place) {
        const int64_t wanted = id[b * ids.stride(0)];
        if (static_cast<uint64_t>(wanted) < static_cast<uint64_t>(field_.cardinality)) {
          *place = place_of(wanted);
        } else if (field_.multi && wanted == kEmptySlot) {
          *place = kNoRow;
        } else {
          return false;
        }
      }
    }
    touched_.gradient.resize(static_cast<std::size_t>(elements_));
    return true;
  }

 private:
  int32_t place_of(int64_t id) {
    const TierLayout& tier = field_.tier_of(id);
    const int64_t local = tier.first_stored + (tier.stored == 1 ? 0 : id - tier.first);
    const int64_t number = field_.first_stored + local;
    auto& rows = touched_.rows;
    int32_t& place = index_.find(local, [&](int32_t i) { return rows[static_cast<std::size_t>(i)].number == number; });
    if (place == kFree) {
      place = static_cast<int32_t>(rows.size());
      const int64_t size = tier.rank + wide_;
      rows.push_back({number, tier.start + (id - tier.first) * tier.stride, size, elements_});
      elements_ += size;
    }
    return place;
  }

  const bool wide_;
  const FieldLayout& field_;
  TouchedField& touched_;
  RowIndex index_;
  int64_t elements_ = 0;
};

}  // namespace

bool find_touched_rows(const EmbeddingLayout& layout, const at::Tensor& ids, TouchedRows& touched) {
  touched.fields.resize(layout.fields.size());
  std::atomic<bool> valid = true;
  parallel_for_each(layout.field_count(), [&](int64_t j) {
    const auto& field = layout.fields[static_cast<std::size_t>(j)];
    FieldSearch search(layout, field, ids.size(0) * field.slots, touched.fields[static_cast<std::size_t>(j)]);
    const bool good = ids.scalar_type() == at::kInt ? search.run<int32_t>(ids) : search.run<int64_t>(ids);
    if (!good) valid = false;
  });
  return valid;
}

std::vector<RowPiece> pieces_of(const TouchedRows& touched) {
  std::vector<RowPiece> pieces;
  for (std::size_t j = 0; j < touched.fields.size(); ++j) {
    const auto rows = static_cast<int64_t>(touched.fields[j].rows.size());
    for (int64_t begin = 0; begin < rows; begin += kRowsPerPiece) {
      pieces.push_back({j, begin, std::min(begin + kRowsPerPiece, rows)});
    }
  }
  return pieces;
}

}  // namespace afm::nn
