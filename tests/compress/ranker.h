#pragma once

// A module tree that libafm knows nothing of, with everything that compression must cope with: fields with one slot and
// with several, wide weights, nesting, a layer that is used twice and registered twice, one without bias, one that no
// batch reaches, one output. And its calibration rows.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <torch/torch.h>

#include "libafm/compress/statistics.h"
#include "libafm/data/batch.h"
#include "libafm/nn/embedding.h"
#include "libafm/nn/linear.h"
#include "tests/linalg/relative_error.h"

namespace afm::testing {

inline const std::vector<int64_t> kCardinalities = {60, 9, 25, 14};
inline const std::vector<int64_t> kSlots = {1, 1, 3, 1};
inline constexpr int64_t kDim = 6;

struct TowerImpl : torch::nn::Module {
  TowerImpl() {
    const int64_t width = kDim * static_cast<int64_t>(kCardinalities.size());
    mix = register_module("mix", nn::Linear(width, width));
    register_module("mix_again", mix);
    narrow = register_module("narrow",
                             nn::Linear(nn::LinearOptions{.in_features = width, .out_features = 16, .bias = false}));
  }
  at::Tensor forward(const at::Tensor& x) { return narrow(torch::relu(mix(torch::relu(mix(x))))); }

  nn::Linear mix{nullptr}, narrow{nullptr};
};
TORCH_MODULE(Tower);

struct RankerImpl : torch::nn::Module {
  RankerImpl() {
    embedding = register_module(
        "embedding", nn::Embedding(nn::EmbeddingOptions{
                         .cardinalities = kCardinalities, .embedding_dim = kDim, .slots = kSlots, .wide = true}));
    tower = register_module("tower", Tower());
    head = register_module("head", nn::Linear(16, 1));
    spare = register_module("spare", nn::Linear(5, 4));
  }
  at::Tensor forward(const at::Tensor& ids) {
    const auto found = embedding->lookup(ids);
    return head(torch::relu(tower(found.values.flatten(1)))).squeeze(1) + found.wide;
  }

  nn::Embedding embedding{nullptr};
  Tower tower{nullptr};
  nn::Linear head{nullptr}, spare{nullptr};
};
TORCH_MODULE(Ranker);

// Rows around a mean of their own, with a spread that falls from direction to direction, as trained tables have.
inline at::Tensor table_values(int64_t rows, int64_t dim) {
  const at::Tensor scale = torch::pow(0.5, torch::arange(dim, torch::kDouble));
  return torch::mm(torch::randn({rows, dim}, torch::kDouble) * scale, torch::randn({dim, dim}, torch::kDouble)) +
         torch::randn({dim}, torch::kDouble);
}

inline void fill_table(nn::EmbeddingImpl& embedding) {
  const torch::NoGradGuard no_grad;
  int64_t start = 0;
  for (const int64_t cardinality : embedding.options.cardinalities) {
    embedding.weight.narrow(0, start, cardinality).copy_(table_values(cardinality, embedding.weight.size(1)));
    start += cardinality;
  }
}

// The same seed, the same weights.
inline Ranker make_ranker(int64_t seed = 1, at::ScalarType dtype = torch::kDouble) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  Ranker ranker;
  ranker->to(torch::kDouble);
  fill_table(*ranker->embedding);
  const torch::NoGradGuard no_grad;
  ranker->tower->mix->bias.normal_();
  ranker->head->bias.normal_();
  ranker->to(dtype);
  return ranker;
}

// Ids with few frequent and many rare values; rows of the multi-valued field hold none to three. No id of the last two
// in each field is ever used.
inline at::Tensor make_ids(int64_t rows, int64_t seed = 2) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  std::vector<at::Tensor> columns;
  for (std::size_t j = 0; j < kSlots.size(); ++j) {
    for (int64_t slot = 0; slot < kSlots[j]; ++slot) {
      const auto ids = (torch::rand({rows}).square() * static_cast<double>(kCardinalities[j] - 2)).to(torch::kInt32);
      const auto filled = kSlots[j] == 1 ? torch::ones({rows}, torch::kBool) : torch::rand({rows}) < 0.5;
      columns.push_back(torch::where(filled, ids, torch::full_like(ids, kEmptySlot)));
    }
  }
  return torch::stack(columns, 1);
}

// Row batches of `ids` through `forward`.
template <typename Forward>
NextLogits batches_of(const at::Tensor& ids, int64_t batch, Forward forward) {
  return [=, start = int64_t{0}]() mutable -> std::optional<at::Tensor> {
    if (start >= ids.size(0)) return std::nullopt;
    const int64_t length = std::min(batch, ids.size(0) - start);
    const at::Tensor rows = ids.narrow(0, start, length);
    start += length;
    return forward(rows);
  };
}

inline Statistics statistics_of(Ranker ranker, const at::Tensor& ids, CollectOptions options = {}) {
  return collect_statistics(
      *ranker, batches_of(ids, 100, [ranker](const at::Tensor& rows) mutable { return ranker(rows); }), options);
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

}  // namespace afm::testing
