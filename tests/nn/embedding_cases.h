#pragma once

// Embeddings of every form, random ids for them, and the meaning of a lookup written out as loops.

#include <string>
#include <vector>

#include <torch/torch.h>

#include "libafm/data/batch.h"
#include "libafm/nn/embedding.h"

namespace afm::nn {

struct EmbeddingCase {
  std::string name;
  EmbeddingOptions options;
};

inline std::vector<EmbeddingCase> embedding_cases() {
  std::vector<EmbeddingCase> cases;
  for (const bool wide : {false, true}) {
    for (const auto& slots : std::vector<std::vector<int64_t>>{{}, {1, 3, 1, 2}}) {
      const EmbeddingOptions dense{
          .cardinalities = {7, 5, 1, 40}, .embedding_dim = 6, .slots = slots, .wide = wide, .init_std = 1.0};
      const std::string suffix = std::string(wide ? ", wide" : "") + (slots.empty() ? "" : ", multi");
      cases.push_back({"dense" + suffix, dense});
      for (const Basis basis : {Basis::kField, Basis::kShared}) {
        for (const auto& ranks : std::vector<std::vector<int64_t>>{{2, 0, 1, 5}, {0, 3, 6, 0}, {0, 0, 0, 0}}) {
          EmbeddingOptions factorized = dense;
          factorized.ranks = ranks;
          factorized.basis = basis;
          cases.push_back({std::string(name_of(basis)) + " " + std::to_string(ranks[1]) + suffix, factorized});
        }
      }
    }
  }
  return cases;
}

// An embedding whose parameters are all random, offsets included.
inline Embedding random_embedding(const EmbeddingOptions& options) {
  Embedding embedding(options);
  const torch::NoGradGuard no_grad;
  for (auto& parameter : embedding->parameters()) parameter.normal_();
  return embedding;
}

inline std::vector<int64_t> slots_of(const EmbeddingOptions& options) {
  return options.slots.empty() ? std::vector<int64_t>(options.cardinalities.size(), 1) : options.slots;
}

// Ids [B, S] int64; a slot of a multi field is empty with probability 1/2, whatever its place.
inline at::Tensor random_ids(const EmbeddingOptions& options, int64_t rows) {
  std::vector<at::Tensor> columns;
  const auto slots = slots_of(options);
  for (std::size_t j = 0; j < slots.size(); ++j) {
    at::Tensor ids = torch::randint(options.cardinalities[j], {rows, slots[j]}, at::kLong);
    if (slots[j] > 1) ids.masked_fill_(torch::rand({rows, slots[j]}) < 0.5, kEmptySlot);
    columns.push_back(ids);
  }
  return at::cat(columns, 1);
}

// The meaning of a lookup: tables and wide weights by row, one field and one slot after the other; float64.
inline EmbeddingOutput reference_lookup(const EmbeddingImpl& embedding, const at::Tensor& ids) {
  const EmbeddingOptions& options = embedding.options;
  const int64_t fields = embedding.field_count();
  const at::Tensor values = torch::zeros({ids.size(0), fields, options.embedding_dim}, at::kDouble);
  const at::Tensor wide = torch::zeros({ids.size(0)}, at::kDouble);
  const at::Tensor wide_weights = options.wide ? embedding.wide_weights().to(at::kDouble) : at::Tensor();
  int64_t first_slot = 0, first_row = 0;
  const auto slots = slots_of(options);
  for (int64_t j = 0; j < fields; ++j) {
    const auto count = slots[static_cast<std::size_t>(j)];
    const at::Tensor table = embedding.table(j).to(at::kDouble);
    for (int64_t b = 0; b < ids.size(0); ++b) {
      const at::Tensor row = ids[b].narrow(0, first_slot, count).to(at::kLong);
      const at::Tensor filled = row.masked_select(row != kEmptySlot);
      if (filled.numel() == 0) continue;
      values[b][j] = table.index_select(0, filled).mean(0);
      if (options.wide) wide[b] += wide_weights.index_select(0, filled + first_row).mean();
    }
    first_slot += count;
    first_row += options.cardinalities[static_cast<std::size_t>(j)];
  }
  return {values, options.wide ? wide : at::Tensor(), at::Tensor()};
}

}  // namespace afm::nn
