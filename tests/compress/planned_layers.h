#pragma once

// Statistics with a metric that are made up, layer by layer, for tests of planning.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "libafm/compress/statistics.h"

namespace afm::testing {

// Positive definite, with a spectrum that falls by `decay` from value to value.
inline at::Tensor random_covariance(int64_t dim, double scale = 1.0, double decay = 0.6) {
  const at::Tensor basis = std::get<0>(torch::linalg_qr(torch::randn({dim, dim}, torch::kDouble)));
  const at::Tensor values = scale * torch::pow(decay, torch::arange(dim, torch::kDouble));
  return torch::mm(basis * values, basis.t());
}

inline Moments moments_of(const at::Tensor& mean, const at::Tensor& covariance, double count) {
  return {count, mean, covariance * count};
}

inline Moments random_moments(int64_t dim, double scale, double decay = 0.6) {
  return moments_of(torch::randn({dim}, torch::kDouble), random_covariance(dim, scale, decay), 1000.0);
}

inline LayerStatistics linear_layer(int64_t in, int64_t out, double scale, double decay = 0.6) {
  LayerStatistics layer;
  layer.in_features = in;
  layer.out_features = out;
  layer.input_mean = torch::randn({in}, torch::kDouble);
  layer.output = {random_moments(out, scale, decay)};
  layer.metric = {random_covariance(out)};
  return layer;
}

// With wide weights: rows [N_j, D + 1] and their counts [N_j].
inline LayerStatistics table_layer(std::vector<int64_t> cardinalities, int64_t dim, const std::vector<at::Tensor>& rows,
                                   const std::vector<at::Tensor>& counts) {
  LayerStatistics layer;
  layer.is_embedding = layer.wide = true;
  layer.cardinalities = std::move(cardinalities);
  layer.embedding_dim = dim;
  layer.id_counts = counts;
  for (std::size_t j = 0; j < rows.size(); ++j) {
    Moments joint(dim + 1), values(dim);
    joint.add_weighted(rows[j], counts[j]);
    values.add_weighted(rows[j].narrow(1, 0, dim), counts[j]);
    layer.joint.push_back(joint);
    layer.output.push_back(values);
    layer.metric.push_back(random_covariance(dim + 1));
    auto& blocks = layer.id_blocks.emplace_back();
    for (int64_t begin = 0; begin < layer.cardinalities[j];) {
      const int64_t end = std::min(layer.cardinalities[j], begin + begin / 2 + 1);
      Moments block(dim + 1);
      block.add_weighted(rows[j].narrow(0, begin, end - begin), counts[j].narrow(0, begin, end - begin));
      blocks.push_back({begin, end, block});
      begin = end;
    }
  }
  return layer;
}

// Rare ids are smaller, as those of trained tables are.
inline LayerStatistics random_table(const std::vector<int64_t>& cardinalities, int64_t dim, double scale) {
  std::vector<at::Tensor> rows, counts;
  for (const int64_t ids : cardinalities) {
    const at::Tensor mix = torch::randn({dim + 1, dim + 1}, torch::kDouble) *
                           torch::pow(0.5, torch::arange(dim + 1, torch::kDouble)).unsqueeze(1);
    counts.push_back((1e4 / torch::arange(1, ids + 1, torch::kDouble)).floor() + 1.0);
    rows.push_back(scale * torch::mm(torch::randn({ids, dim + 1}, torch::kDouble), mix));
  }
  return table_layer(cardinalities, dim, rows, counts);
}

// The statistics of a model that is these layers, in float32.
inline Statistics statistics_of(std::map<std::string, LayerStatistics> layers) {
  Statistics statistics;
  statistics.layers = std::move(layers);
  statistics.rows = 1000;
  for (const auto& [path, layer] : statistics.layers) statistics.parameters += layer.parameters();
  statistics.bytes = statistics.parameter_bytes = 4 * statistics.parameters;
  return statistics;
}

}  // namespace afm::testing
