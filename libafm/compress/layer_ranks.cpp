#include "libafm/compress/layer_ranks.h"

#include <algorithm>
#include <stdexcept>

#include "libafm/core/fail.h"

namespace afm {
namespace {

void check_tiers(const std::string& path, const LayerStatistics& layer, const LayerPlan& plan) {
  if (plan.tiers.size() != plan.ranks.size()) {
    fail<std::invalid_argument>("the rank plan of layer '{}' must have tiers for {} fields or none, got {}", path,
                                plan.ranks.size(), plan.tiers.size());
  }
  for (std::size_t j = 0; j < plan.tiers.size(); ++j) {
    int64_t rows = 0, rank = plan.ranks[j];
    bool grows = !plan.tiers[j].empty() && plan.tiers[j][0].rank != rank;
    for (const Tier& tier : plan.tiers[j]) {
      grows |= tier.rows < 1 || tier.rank < 0 || tier.rank > rank;
      rank = tier.rank;
      rows += tier.rows;
    }
    if (plan.tiers[j].empty() || (!grows && rows == layer.cardinalities[j])) continue;
    fail<std::invalid_argument>(
        "the tiers of field {} of layer '{}' must cover its {} ids, with ranks that start at {} and do not grow", j,
        path, layer.cardinalities[j], plan.ranks[j]);
  }
}

}  // namespace

int64_t rank_count(const LayerStatistics& layer) {
  return layer.is_embedding ? static_cast<int64_t>(layer.cardinalities.size()) : 1;
}

int64_t largest_rank(const LayerStatistics& layer, bool joint) {
  return layer.is_embedding ? layer.embedding_dim + (joint ? 1 : 0) : std::min(layer.in_features, layer.out_features);
}

void check_ranks(const std::string& path, const LayerStatistics& layer, const LayerPlan& plan) {
  const bool is_table = layer.is_embedding && !plan.ranks.empty();
  if (plan.joint && !(is_table && layer.wide && plan.basis != Basis::kShared)) {
    fail<std::invalid_argument>(
        "the rank plan of layer '{}' must not be joint: that takes an embedding with wide weights, ranks and no shared "
        "basis",
        path);
  }
  if (!plan.tiers.empty() && !is_table) {
    fail<std::invalid_argument>("the rank plan of layer '{}' must have no tiers: they take an embedding with ranks",
                                path);
  }
  if (plan.ranks.empty()) return;
  if (static_cast<int64_t>(plan.ranks.size()) != rank_count(layer)) {
    fail<std::invalid_argument>("the rank plan of layer '{}' must have {} ranks, got {}", path, rank_count(layer),
                                plan.ranks.size());
  }
  for (const int64_t rank : plan.ranks) {
    const int64_t largest = largest_rank(layer, plan.joint);
    if (rank >= 0 && rank <= largest) continue;
    fail<std::invalid_argument>("a rank of layer '{}' must be in [0, {}], got {}", path, largest, rank);
  }
  if (!plan.tiers.empty()) check_tiers(path, layer, plan);
}

}  // namespace afm
