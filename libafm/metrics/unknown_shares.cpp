#include <algorithm>

#include <ATen/ATen.h>

#include "libafm/data/batch.h"
#include "libafm/metrics/metrics.h"

namespace afm {
namespace {

constexpr int64_t kUnknownId = 0;
constexpr int64_t kRowsPerCount = int64_t{1} << 20;

struct SlotCounts {
  at::Tensor unknown, filled;  // [S] int64
};

SlotCounts count_slots(const Dataset& dataset) {
  SlotCounts counts{at::zeros({dataset.schema().slot_count()}, at::kLong), {}};
  counts.filled = counts.unknown.clone();
  for (int64_t begin = 0; begin < dataset.size(); begin += kRowsPerCount) {
    const at::Tensor ids = dataset.range(begin, std::min(begin + kRowsPerCount, dataset.size())).ids;
    counts.unknown += ids.eq(kUnknownId).sum(0).cpu();
    counts.filled += ids.ne(kEmptySlot).sum(0).cpu();
  }
  return counts;
}

}  // namespace

std::vector<UnknownShare> unknown_shares(const Dataset& dataset) {
  const SlotCounts counts = count_slots(dataset);
  std::vector<UnknownShare> shares;
  int64_t slot = 0;
  for (const FieldSpec& field : dataset.schema().fields) {
    if (!field.has_ids()) continue;
    const auto in_field = [&](const at::Tensor& slots) {
      return static_cast<double>(slots.narrow(0, slot, field.slots()).sum().item<int64_t>());
    };
    shares.push_back({field.name, in_field(counts.unknown) / std::max(in_field(counts.filled), 1.0)});
    slot += field.slots();
  }
  return shares;
}

}  // namespace afm
