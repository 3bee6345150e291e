#pragma once

// Private: what layers cost in each of their forms: parameters, bytes, multiply-adds.

#include <cstdint>
#include <string>
#include <vector>

#include "libafm/compress/plan.h"
#include "libafm/compress/statistics.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

// Sums of parts; two codes of int4 are a byte, so a part may have half a one.
struct Size {
  double parameters = 0.0, bytes = 0.0, macs = 0.0;
  Size& operator+=(const Size& other);
  friend Size operator+(Size a, const Size& b) { return a += b; }
  friend Size operator-(const Size& a, const Size& b) {
    return {a.parameters - b.parameters, a.bytes - b.bytes, a.macs - b.macs};
  }
  friend Size operator*(double times, const Size& a) { return {times * a.parameters, times * a.bytes, times * a.macs}; }
};

// How the numbers of a plan are stored, and what becomes of bases.
struct StorageRules {
  double float_bytes = 4.0;
  bool fold = false, keep_basis = false;
};
StorageRules storage_rules(const Statistics& statistics, const PlanOptions& options);
// With Basis::kNone a table is folded.
StorageRules rules_for(const LayerPlan& table, StorageRules rules);

// Whether a table stores a wide weight beside each row.
bool has_wide_column(const LayerStatistics& layer, const LayerPlan& form);

// A linear layer in the form of `plan` (ranks empty: dense) with `inputs` inputs, which may be fewer than it has.
Size linear_size(const LayerStatistics& layer, const LayerPlan& plan, double inputs, const StorageRules& rules);

// The stored rows of one tier of a field. `form`: basis, joint, bits and scale of the embedding.
Size tier_size(const LayerStatistics& layer, const LayerPlan& form, const Tier& tier, const StorageRules& rules);
// What a field adds for each coordinate of its latents besides their rows: basis, scale, multiply-adds; and once.
Size coordinate_size(const LayerStatistics& layer, const LayerPlan& form, const StorageRules& rules);
Size field_base_size(const LayerStatistics& layer, const LayerPlan& form, const StorageRules& rules);

// One field of rank k in `tiers` (empty: one tier).
Size field_size(const LayerStatistics& layer, const LayerPlan& form, std::size_t field, int64_t rank,
                const std::vector<Tier>& tiers, const StorageRules& rules);
// The whole table in the form of `plan`, and what of it is one basis for all fields.
Size shared_basis_size(const LayerStatistics& layer, const LayerPlan& plan, const StorageRules& rules);
Size table_size(const LayerStatistics& layer, const LayerPlan& plan, const StorageRules& rules);

Size layer_size(const LayerStatistics& layer, const LayerPlan& plan, const StorageRules& rules);  // of either kind
Size dense_size(const Statistics& statistics);  // of the whole module tree

// What folding an embedding adds to the vector cross network behind it, if any; `width` is K.
Size folded_cross_change(const Statistics& statistics, const LayerStatistics& embedding, const PlanOptions& options,
                         double width, const StorageRules& rules);

// The linear layers that read an embedding's outputs in their first F D inputs: those that `options` names or, when it
// names none, those whose inputs have the means of these outputs.
std::vector<std::string> first_layers_of(const Statistics& statistics, const LayerStatistics& embedding,
                                         const PlanOptions& options);

}  // namespace afm
