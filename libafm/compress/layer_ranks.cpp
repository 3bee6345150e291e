#include "libafm/compress/layer_ranks.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "libafm/core/fail.h"

namespace afm {

int64_t rank_count(const LayerStatistics& layer) {
  return layer.is_embedding ? static_cast<int64_t>(layer.cardinalities.size()) : 1;
}

int64_t largest_rank(const LayerStatistics& layer) {
  return layer.is_embedding ? layer.embedding_dim : std::min(layer.in_features, layer.out_features);
}

void check_ranks(const std::string& path, const LayerStatistics& layer, const LayerPlan& plan) {
  if (static_cast<int64_t>(plan.ranks.size()) != rank_count(layer)) {
    fail<std::invalid_argument>("the rank plan of layer '{}' must have {} ranks, got {}", path, rank_count(layer),
                                plan.ranks.size());
  }
  for (const int64_t rank : plan.ranks) {
    if (rank >= 0 && rank <= largest_rank(layer)) continue;
    fail<std::invalid_argument>("a rank of layer '{}' must be in [0, {}], got {}", path, largest_rank(layer), rank);
  }
}

int64_t factorized_parameters(const LayerStatistics& layer, const std::vector<int64_t>& ranks, Basis basis) {
  if (!layer.is_embedding) {
    return ranks[0] * (layer.out_features + layer.in_features) + ranks[0] + layer.out_features;
  }
  const int64_t wide = layer.wide ? 1 : 0;
  int64_t latent = 0;
  for (std::size_t j = 0; j < ranks.size(); ++j) latent += layer.cardinalities[j] * (ranks[j] + wide);
  const int64_t basis_rows = basis == Basis::kShared ? *std::max_element(ranks.begin(), ranks.end())
                                                     : std::accumulate(ranks.begin(), ranks.end(), int64_t{0});
  return latent + (basis_rows + rank_count(layer)) * layer.embedding_dim;
}

}  // namespace afm
