#pragma once

// Private: one field of an embedding in a rank plan: its frequency tiers, what it loses at which ranks of them, and the
// forms that are worth considering.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "libafm/compress/directions.h"
#include "libafm/compress/statistics.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

// Ids per tier of a field, the most frequent first: at most `most` blocks, each about three times as large as all
// before; their ends are those of LayerStatistics::id_blocks.
std::vector<int64_t> tier_rows(const LayerStatistics& layer, std::size_t field, int64_t most);

// A block of ids with what it adds to the loss of its field.
struct TierLosses {
  int64_t rows = 0;
  std::vector<double> own;     // [limit + 1] with rows of its own that keep the first k coordinates
  std::vector<double> shared;  // [limit + 1] with one row for all, their mean, that keeps k
};

// along [m]: what dropping each of `directions` costs the field. limit: its largest useful rank, at most m. wide: the
// loss per squared error of a wide weight with a storage of its own, which a shared row loses too.
std::vector<TierLosses> tier_losses(const LayerStatistics& layer, std::size_t field, const Directions& directions,
                                    const std::vector<double>& along, int64_t limit, double wide,
                                    const std::vector<int64_t>& rows);

// One form of a field.
struct FieldForm {
  int64_t rank = 0;
  std::vector<Tier> tiers = {};  // empty: one, of all ids
  double loss = 0.0;
};

struct TierCosts {
  std::function<double(const Tier&)> rows;  // of a tier
  double coordinate = 0.0;                  // of each one of the field, besides its rows
};

// From a field of rank 0 to one that loses least, each time by the change that saves most loss per cost: all tiers up
// to one get rows of their own of at least some rank. Ranks that such a change skips are forms too. Ranks never grow
// from one tier to the next.
std::vector<FieldForm> forms_of(const std::vector<TierLosses>& tiers, const TierCosts& costs);

}  // namespace afm
