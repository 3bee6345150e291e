#include <cmath>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "libafm/core/fail.h"
#include "libafm/nn/embedding_options.h"

namespace afm::nn {
namespace {

void check_each(std::string_view name, const std::vector<int64_t>& values, int64_t least) {
  for (const int64_t value : values) {
    if (value >= least) continue;
    fail<std::invalid_argument>("EmbeddingOptions.{} must each be at least {}, got {}", name, least, value);
  }
}

void check_length(std::string_view name, std::size_t length, std::size_t fields) {
  if (length == 0 || length == fields) return;
  fail<std::invalid_argument>("EmbeddingOptions.{} must be empty or have one entry per field ({}), got {}", name,
                              fields, length);
}

void check_ranks(const EmbeddingOptions& options) {
  check_length("ranks", options.ranks.size(), options.cardinalities.size());
  const int64_t largest = options.embedding_dim + options.joint;
  for (const int64_t rank : options.ranks) {
    if (rank >= 0 && rank <= largest) continue;
    fail<std::invalid_argument>("EmbeddingOptions.ranks must each be in [0, {}], got {}", largest, rank);
  }
}

void check_field_tiers(const std::vector<Tier>& tiers, int64_t rank, int64_t cardinality) {
  if (tiers[0].rank != rank) {
    fail<std::invalid_argument>("EmbeddingOptions.tiers must start with the rank of their field ({}), got {}", rank,
                                tiers[0].rank);
  }
  int64_t rows = 0;
  for (const Tier& tier : tiers) {
    if (tier.rows < 1) {
      fail<std::invalid_argument>("EmbeddingOptions.tiers must each have at least 1 row, got {}", tier.rows);
    }
    if (tier.rank < 0 || tier.rank > rank) {
      fail<std::invalid_argument>(
          "EmbeddingOptions.tiers must have ranks of at least 0 that do not grow, got {} after {}", tier.rank, rank);
    }
    rank = tier.rank;
    rows += tier.rows;
  }
  if (rows != cardinality) {
    fail<std::invalid_argument>("EmbeddingOptions.tiers must cover all {} ids of their field, got {} rows", cardinality,
                                rows);
  }
}

void check_tiers(const EmbeddingOptions& options) {
  if (options.tiers.empty()) return;
  if (options.ranks.empty()) fail<std::invalid_argument>("EmbeddingOptions.tiers must be empty without ranks");
  check_length("tiers", options.tiers.size(), options.cardinalities.size());
  for (std::size_t j = 0; j < options.tiers.size(); ++j) {
    if (!options.tiers[j].empty()) check_field_tiers(options.tiers[j], options.ranks[j], options.cardinalities[j]);
  }
}

void check_joint(const EmbeddingOptions& options) {
  if (!options.joint) return;
  if (!options.wide) fail<std::invalid_argument>("EmbeddingOptions.joint must be false without wide weights");
  if (options.ranks.empty()) fail<std::invalid_argument>("EmbeddingOptions.joint must be false without ranks");
  if (options.basis == Basis::kShared) {
    fail<std::invalid_argument>("EmbeddingOptions.joint must be false with a shared basis");
  }
}

void check_multi_valued(const EmbeddingOptions& options) {
  check_length("multi_valued", options.multi_valued.size(), options.cardinalities.size());
  for (std::size_t j = 0; j < options.multi_valued.size() && !options.slots.empty(); ++j) {
    if (options.multi_valued[j] || options.slots[j] == 1) continue;
    fail<std::invalid_argument>("EmbeddingOptions.multi_valued must be true for a field of {} slots, got false",
                                options.slots[j]);
  }
}

}  // namespace

EmbeddingOptions checked_form(EmbeddingOptions options) {
  check_joint(options);
  check_ranks(options);
  check_tiers(options);
  if (options.ranks.empty()) options.basis = Basis::kField;
  if (options.bits == Bits::kFloat) options.scale = ScaleBy::kRow;
  return options;
}

EmbeddingOptions checked_options(EmbeddingOptions options) {
  if (options.cardinalities.empty()) {
    fail<std::invalid_argument>("EmbeddingOptions.cardinalities must name at least one field, got none");
  }
  check_each("cardinalities", options.cardinalities, 1);
  if (options.embedding_dim < 1) {
    fail<std::invalid_argument>("EmbeddingOptions.embedding_dim must be at least 1, got {}", options.embedding_dim);
  }
  check_length("slots", options.slots.size(), options.cardinalities.size());
  check_each("slots", options.slots, 1);
  check_length("names", options.names.size(), options.cardinalities.size());
  if (!(options.init_std >= 0) || !std::isfinite(options.init_std)) {
    fail<std::invalid_argument>("EmbeddingOptions.init_std must be finite and at least 0, got {}", options.init_std);
  }
  check_multi_valued(options);
  return checked_form(std::move(options));
}

}  // namespace afm::nn
