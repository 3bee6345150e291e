#pragma once

// Embeddings of every form, random ids for them, and the meaning of a lookup written out as loops.

#include <algorithm>
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

// Tiers of four fields with those ranks: whole rows, cut ones, shared ones and empty ones.
inline std::vector<std::vector<Tier>> mixed_tiers(const std::vector<int64_t>& ranks) {
  const int64_t k = ranks[3];
  return {{{.rows = 3, .rank = ranks[0]}, {.rows = 4, .rank = ranks[0] / 2}},
          {{.rows = 2, .rank = ranks[1]}, {.rows = 3, .rank = ranks[1], .shared = true}},
          {},
          {{.rows = 1, .rank = k},
           {.rows = 4, .rank = std::max<int64_t>(k - 1, 0)},
           {.rows = 3, .rank = k / 2, .shared = true},
           {.rows = 5, .rank = 0}}};
}

// `form` with and without tiers.
inline void add_forms(const std::string& name, EmbeddingOptions form, std::vector<EmbeddingCase>& cases) {
  cases.push_back({name, form});
  form.tiers = mixed_tiers(form.ranks);
  cases.push_back({name + ", tiers", form});
}

inline void add_factorized(const std::string& suffix, const EmbeddingOptions& dense,
                           std::vector<EmbeddingCase>& cases) {
  for (const Basis basis : {Basis::kField, Basis::kShared, Basis::kNone}) {
    for (const auto& ranks : std::vector<std::vector<int64_t>>{{2, 0, 1, 5}, {0, 3, 6, 0}, {0, 0, 0, 0}}) {
      EmbeddingOptions form = dense;
      form.ranks = ranks;
      form.basis = basis;
      const std::string name = std::string(name_of(basis)) + " " + std::to_string(ranks[1]) + suffix;
      add_forms(name, form, cases);
      form.joint = form.wide && basis != Basis::kShared;
      if (form.joint) add_forms(name + ", joint", form, cases);
    }
  }
}

inline std::vector<EmbeddingCase> embedding_cases() {
  struct Slots {
    std::string name;
    std::vector<int64_t> slots;
    std::vector<bool> multi;
  };
  std::vector<EmbeddingCase> cases;
  for (const bool wide : {false, true}) {
    for (const auto& [name, slots, multi] :
         std::vector<Slots>{{"", {}, {}},
                            {", multi", {1, 3, 1, 2}, {}},
                            {", multi of one", {1, 1, 1, 2}, {false, true, true, true}}}) {
      const EmbeddingOptions dense{.cardinalities = {7, 5, 1, 13},
                                   .embedding_dim = 6,
                                   .slots = slots,
                                   .multi_valued = multi,
                                   .wide = wide,
                                   .init_std = 1.0};
      const std::string suffix = std::string(wide ? ", wide" : "") + name;
      cases.push_back({"dense" + suffix, dense});
      add_factorized(suffix, dense, cases);
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

inline bool is_multi(const EmbeddingOptions& options, std::size_t field) {
  return options.multi_valued.empty() ? slots_of(options)[field] > 1 : options.multi_valued[field];
}

// Ids [B, S] int64; a slot of a multi field is empty with probability 1/2, whatever its place.
inline at::Tensor random_ids(const EmbeddingOptions& options, int64_t rows) {
  std::vector<at::Tensor> columns;
  const auto slots = slots_of(options);
  for (std::size_t j = 0; j < slots.size(); ++j) {
    at::Tensor ids = torch::randint(options.cardinalities[j], {rows, slots[j]}, at::kLong);
    if (is_multi(options, j)) ids.masked_fill_(torch::rand({rows, slots[j]}) < 0.5, kEmptySlot);
    columns.push_back(ids);
  }
  return at::cat(columns, 1);
}

// What the parameters mean, read number after number, in float64.
struct ReferenceTables {
  std::vector<at::Tensor> values;  // [F] of [N_j, D], with Basis::kNone [N_j, k_j]
  std::vector<at::Tensor> wide;    // [F] of [N_j], zeros where there are none
};

inline ReferenceTables reference_tables(const EmbeddingImpl& embedding) {
  const EmbeddingOptions& options = embedding.options;
  const bool dense = options.ranks.empty();
  const at::Tensor flat = (dense ? embedding.weight : embedding.latent).detach().to(at::kDouble).view({-1});
  const auto* next = flat.const_data_ptr<double>();
  const bool stores_wide = options.wide && !options.joint;
  ReferenceTables tables;
  int64_t basis_row = 0;
  for (std::size_t j = 0; j < options.cardinalities.size(); ++j) {
    const int64_t rows = options.cardinalities[j], width = dense ? options.embedding_dim : options.ranks[j];
    std::vector<Tier> tiers{{.rows = rows, .rank = width}};
    if (!options.tiers.empty() && !options.tiers[j].empty()) tiers = options.tiers[j];
    at::Tensor values = torch::zeros({rows, width}, at::kDouble), wide = torch::zeros({rows}, at::kDouble);
    int64_t id = 0;
    for (const Tier& tier : tiers) {
      const auto* shared = next;
      for (int64_t r = 0; r < tier.rows; ++r, ++id) {
        if (tier.shared) next = shared;
        for (int64_t c = 0; c < tier.rank; ++c) values[id][c] = *next++;
        if (stores_wide) wide[id] = *next++;
      }
    }
    if (!dense && options.basis != Basis::kNone) {
      const int64_t first = options.basis == Basis::kShared ? 0 : basis_row;
      const at::Tensor basis = embedding.basis.detach().to(at::kDouble).narrow(0, first, width);
      const at::Tensor offset = embedding.offset.detach().to(at::kDouble)[static_cast<int64_t>(j)];
      const at::Tensor decoded = at::mm(values, basis) + offset;
      values = decoded.narrow(1, 0, options.embedding_dim);
      if (options.joint) wide = decoded.select(1, options.embedding_dim);
      basis_row += width;
    }
    tables.values.push_back(values);
    tables.wide.push_back(wide);
  }
  return tables;
}

// The meaning of a lookup: tables and wide weights by row, one field and one slot after the other; float64.
inline EmbeddingOutput reference_lookup(const EmbeddingImpl& embedding, const at::Tensor& ids) {
  const EmbeddingOptions& options = embedding.options;
  const bool folded = options.basis == Basis::kNone;
  const ReferenceTables tables = reference_tables(embedding);
  const auto slots = slots_of(options);
  std::vector<at::Tensor> fields;
  at::Tensor wide = torch::zeros({ids.size(0)}, at::kDouble);
  int64_t first_slot = 0;
  for (std::size_t j = 0; j < slots.size(); ++j) {
    at::Tensor values = torch::zeros({ids.size(0), tables.values[j].size(1)}, at::kDouble);
    for (int64_t b = 0; b < ids.size(0); ++b) {
      const at::Tensor row = ids[b].narrow(0, first_slot, slots[j]).to(at::kLong);
      const at::Tensor filled = row.masked_select(row != kEmptySlot);
      if (filled.numel() == 0) continue;
      values[b] = tables.values[j].index_select(0, filled).mean(0);
      wide[b] += tables.wide[j].index_select(0, filled).mean();
    }
    fields.push_back(values);
    first_slot += slots[j];
  }
  EmbeddingOutput output;
  (folded ? output.latents : output.values) = folded ? at::cat(fields, 1) : at::stack(fields, 1);
  if (options.wide && !(folded && options.joint)) output.wide = wide;
  return output;
}

// Values, latents and wide weights of a lookup in one vector.
inline at::Tensor joined(const EmbeddingOutput& output) {
  std::vector<at::Tensor> parts;
  for (const at::Tensor& part : {output.values, output.latents, output.wide}) {
    if (part.defined()) parts.push_back(part.flatten());
  }
  return at::cat(parts);
}

}  // namespace afm::nn
