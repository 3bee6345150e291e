#include "libafm/compress/layer_ranks.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>

#include "libafm/core/fail.h"

namespace afm {
namespace {

Spectrum pooled_spectrum(const LayerStatistics& layer) {
  at::Tensor pooled = at::zeros({layer.embedding_dim, layer.embedding_dim}, at::kDouble);
  for (int64_t j = 0; j < rank_count(layer); ++j) {
    pooled += layer.output[static_cast<std::size_t>(j)].covariance() * share_of_rows(layer, j);
  }
  return spectrum_of(pooled);
}

std::vector<double> as_vector(const at::Tensor& values) {
  const auto* data = values.const_data_ptr<double>();
  return {data, data + values.numel()};
}

std::vector<double> variance_along(const Moments& output, const Spectrum& spectrum) {
  return as_vector(at::mm(output.covariance(), spectrum.vectors).mul_(spectrum.vectors).sum(0).clamp_min_(0.0));
}

}  // namespace

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

double Directions::discarded(int64_t k) const {
  return std::accumulate(variance.rbegin(), variance.rend() - k, 0.0);  // the smallest first
}

std::vector<Directions> output_directions(const LayerStatistics& layer, Basis basis) {
  std::vector<Directions> directions;
  if (layer.is_embedding && basis == Basis::kShared) {
    const Spectrum pooled = pooled_spectrum(layer);
    for (const Moments& output : layer.output) directions.push_back({pooled, variance_along(output, pooled)});
    return directions;
  }
  for (const Moments& output : layer.output) {
    Spectrum own = spectrum_of(output.covariance());
    std::vector<double> variance = as_vector(own.values);
    directions.push_back({std::move(own), std::move(variance)});
  }
  return directions;
}

double share_of_rows(const LayerStatistics& layer, int64_t field) {
  double most = 0.0;
  for (const Moments& output : layer.output) most = std::max(most, output.count());
  return most == 0.0 ? 0.0 : layer.output[static_cast<std::size_t>(field)].count() / most;
}

}  // namespace afm
