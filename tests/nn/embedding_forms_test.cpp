#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

#include <cmath>
#include <limits>
#include <sstream>

#include "libafm/linalg/factors.h"
#include "libafm/nn/embedding.h"
#include "tests/nn/embedding_cases.h"
#include "tests/nn/gradient_check.h"

namespace afm::nn {
namespace {

using Catch::Matchers::Message;

EmbeddingOptions three_fields() {
  return {.cardinalities = {5, 2, 9}, .embedding_dim = 4, .slots = {1, 2, 1}, .wide = true, .init_std = 1.0};
}

// Random factors of those ranks; with a shared basis each is a prefix of one.
std::vector<TableFactors> random_factors(const EmbeddingOptions& options, const std::vector<int64_t>& ranks,
                                         Basis basis) {
  const at::Tensor shared = torch::randn({options.embedding_dim, options.embedding_dim});
  std::vector<TableFactors> factors;
  for (std::size_t j = 0; j < ranks.size(); ++j) {
    factors.push_back(
        {torch::randn({options.cardinalities[j], ranks[j]}),
         basis == Basis::kShared ? shared.narrow(0, 0, ranks[j]) : torch::randn({ranks[j], options.embedding_dim}),
         torch::randn({options.embedding_dim})});
  }
  return factors;
}

TEST_CASE("a dense table has rows N and columns D, with a wide column on demand") {
  Embedding plain(EmbeddingOptions{.cardinalities = {5, 2}, .embedding_dim = 4});
  CHECK(plain->weight.sizes() == at::IntArrayRef{7, 4});
  CHECK_FALSE(plain->wide_weights().defined());
  CHECK(plain->wide_parameters() == 0);
  Embedding wide(three_fields());
  CHECK(wide->weight.sizes() == at::IntArrayRef{16, 5});
  CHECK(wide->wide_parameters() == 16);
  CHECK(at::equal(wide->wide_weights(), wide->weight.select(1, 4).detach()));
  CHECK(at::equal(wide->table(1), wide->weight.narrow(0, 5, 2).narrow(1, 0, 4).detach()));
  CHECK(wide->is_dense());
  CHECK(wide->plan() == LayerPlan{});
  CHECK(wide->field_count() == 3);
  CHECK(wide->slot_count() == 4);
  CHECK(wide->row_count() == 16);
}

TEST_CASE("fresh values have the standard deviation asked for, in both forms") {
  torch::manual_seed(1);
  EmbeddingOptions options{.cardinalities = {3000}, .embedding_dim = 8, .init_std = 0.01};
  Embedding dense(options);
  CHECK(std::abs(dense->weight.std().item<double>() / 0.01 - 1) < 0.02);
  CHECK(std::abs(dense->weight.mean().item<double>()) < 2e-4);
  options.ranks = {3};
  Embedding factorized(options);
  CHECK(std::abs(factorized->latent.std().item<double>() / 0.01 - 1) < 0.04);
  CHECK(factorized->offset.abs().max().item<double>() == 0);
  CHECK(relative_error(at::mm(factorized->basis, factorized->basis.t()), torch::eye(3)) < 1e-6);
}

TEST_CASE("set_factors makes each field latent times basis plus offset and keeps the wide weights") {
  torch::manual_seed(2);
  const std::vector<int64_t> ranks{3, 0, 1};
  for (const Basis basis : {Basis::kField, Basis::kShared}) {
    Embedding embedding(three_fields());
    const at::Tensor wide = embedding->wide_weights();
    const auto factors = random_factors(embedding->options, ranks, basis);
    embedding->set_factors(factors, {.basis = basis});
    CHECK(embedding->plan() == LayerPlan{.ranks = ranks, .basis = basis});
    CHECK(embedding->latent.sizes() == at::IntArrayRef{5 * 4 + 2 * 1 + 9 * 2});
    CHECK(embedding->basis.sizes() == at::IntArrayRef{basis == Basis::kShared ? 3 : 4, 4});
    CHECK(at::equal(embedding->wide_weights(), wide));
    CHECK(embedding->parameters().size() == 3);
    for (int64_t j = 0; j < 3; ++j) {
      const TableFactors& field = factors[static_cast<std::size_t>(j)];
      CHECK(relative_error(embedding->table(j), at::mm(field.latent, field.basis) + field.offset) < 1e-6);
    }
    // And again, from the factorized form.
    embedding->set_factors(random_factors(embedding->options, {1, 1, 1}, Basis::kField), {});
    CHECK(embedding->plan().ranks == std::vector<int64_t>{1, 1, 1});
    CHECK(at::equal(embedding->wide_weights(), wide));
  }
}

// Three fields with whole, cut, shared and empty rows.
LayerPlan tiered_plan(Basis basis) {
  return {.ranks = {3, 0, 2},
          .basis = basis,
          .tiers = {{{.rows = 2, .rank = 3}, {.rows = 3, .rank = 1}},
                    {},
                    {{.rows = 1, .rank = 2}, {.rows = 5, .rank = 1, .shared = true}, {.rows = 3, .rank = 0}}}};
}

// Latents as tiers leave them: cut, and equal where a row is shared.
void cut_to_tiers(std::vector<TableFactors>& factors, const LayerPlan& plan) {
  for (std::size_t j = 0; j < factors.size(); ++j) {
    int64_t first = 0;
    for (const Tier& tier : plan.tiers[j]) {
      const at::Tensor rows = factors[j].latent.narrow(0, first, tier.rows);
      rows.narrow(1, tier.rank, rows.size(1) - tier.rank).zero_();
      if (tier.shared) rows.copy_(rows.narrow(0, 0, 1).clone().expand_as(rows));
      first += tier.rows;
    }
  }
}

TEST_CASE("set_factors cuts each row to its tier and stores a shared one once") {
  torch::manual_seed(3);
  for (const Basis basis : {Basis::kField, Basis::kShared, Basis::kNone}) {
    const LayerPlan plan = tiered_plan(basis);
    Embedding embedding(three_fields());
    const at::Tensor wide = embedding->wide_weights();
    auto cut = random_factors(embedding->options, plan.ranks, basis);
    cut_to_tiers(cut, plan);
    auto whole = cut;
    whole[0].latent = cut[0].latent.clone();
    whole[0].latent.narrow(0, 2, 3).narrow(1, 1, 2).fill_(9.0);  // behind the rank of their tier
    embedding->set_factors(whole, plan);
    CHECK(embedding->plan() == plan);
    CHECK(embedding->latent.numel() == 2 * 4 + 3 * 2 + 2 * 1 + 1 * 3 + 1 * 2 + 3 * 1);
    CHECK(embedding->wide_parameters() == 5 + 2 + 1 + 1 + 3);
    for (int64_t j = 0; j < 3; ++j) {
      const TableFactors& field = cut[static_cast<std::size_t>(j)];
      const at::Tensor expected =
          basis == Basis::kNone ? field.latent : at::mm(field.latent, field.basis) + field.offset;
      CHECK(relative_error(embedding->table(j), expected) < 1e-6);
    }
    // The wide weights stay, but for the mean of those that share a row.
    at::Tensor kept = wide.clone();
    kept.narrow(0, 8, 5).fill_(wide.narrow(0, 8, 5).mean());
    CHECK(relative_error(embedding->wide_weights(), kept) < 1e-6);
    embedding->set_factors(cut, plan, torch::ones({16}));
    CHECK(at::equal(embedding->wide_weights(), torch::ones({16})));
  }
}

TEST_CASE("joint factors carry the wide weights, which have no storage of their own") {
  torch::manual_seed(4);
  Embedding embedding(three_fields());
  EmbeddingOptions wider = embedding->options;
  wider.embedding_dim = 5;
  const auto factors = random_factors(wider, {5, 0, 2}, Basis::kField);  // as many as there are columns
  embedding->set_factors(factors, {.joint = true});
  CHECK(embedding->latent.sizes() == at::IntArrayRef{5 * 5 + 9 * 2});
  CHECK(embedding->basis.sizes() == at::IntArrayRef{7, 5});
  CHECK(embedding->offset.sizes() == at::IntArrayRef{3, 5});
  CHECK(embedding->wide_parameters() == 0);
  std::vector<at::Tensor> wide;
  for (std::size_t j = 0; j < 3; ++j) {
    const at::Tensor decoded = at::mm(factors[j].latent, factors[j].basis) + factors[j].offset;
    CHECK(relative_error(embedding->table(static_cast<int64_t>(j)), decoded.narrow(1, 0, 4)) < 1e-6);
    wide.push_back(decoded.select(1, 4));
  }
  CHECK(relative_error(embedding->wide_weights(), at::cat(wide)) < 1e-6);

  // Apart again, they are what they decoded to; folded, they are in the hands of whoever reads the latents.
  Embedding apart(std::dynamic_pointer_cast<EmbeddingImpl>(embedding->clone()));
  apart->set_factors(random_factors(apart->options, {1, 1, 1}, Basis::kField), {});
  CHECK(relative_error(apart->wide_weights(), at::cat(wide)) < 1e-6);
  embedding->set_factors(factors, {.basis = Basis::kNone, .joint = true});
  CHECK_FALSE(embedding->wide_weights().defined());
  CHECK(embedding->named_parameters().keys() == std::vector<std::string>{"latent"});
  CHECK_THROWS_MATCHES(embedding->set_factors(random_factors(embedding->options, {1, 1, 1}, Basis::kField), {}),
                       std::invalid_argument,
                       Message("an embedding that is folded with joint wide weights must get wide weights"));
}

TEST_CASE("a plan is read back as it was given, whatever it states") {
  for (const auto& [name, options] : embedding_cases()) {
    INFO(name);
    Embedding embedding(options);
    LayerPlan plan = embedding->plan();
    plan.bits = Bits::kInt4;
    plan.scale = ScaleBy::kColumn;
    embedding->reshape(plan);
    CHECK(embedding->plan() == plan);
    plan.bits = Bits::kFloat;
    embedding->reshape(plan);
    CHECK(embedding->plan().scale == ScaleBy::kRow);  // a scale of floats means nothing
  }
}

TEST_CASE("reshape keeps dtype, and what it leaves is what the state names") {
  Embedding embedding(three_fields());
  embedding->to(at::kDouble);
  embedding->reshape({.ranks = {4, 1, 2}, .basis = Basis::kShared});
  CHECK(embedding->basis.scalar_type() == at::kDouble);
  CHECK_FALSE(embedding->weight.defined());
  CHECK(embedding->named_parameters().keys() == std::vector<std::string>{"latent", "basis", "offset"});
  CHECK(embedding->named_buffers().is_empty());
  embedding->reshape({});
  CHECK(embedding->is_dense());
  CHECK(embedding->weight.scalar_type() == at::kDouble);
  CHECK(embedding->weight.requires_grad());
  CHECK(embedding->named_parameters().keys() == std::vector<std::string>{"weight"});
}

TEST_CASE("a clone is equal and independent, in every form") {
  for (const auto& [name, options] : embedding_cases()) {
    INFO(name);
    Embedding embedding = random_embedding(options);
    const at::Tensor ids = random_ids(options, 6);
    Embedding copy(std::dynamic_pointer_cast<EmbeddingImpl>(embedding->clone()));
    const torch::NoGradGuard no_grad;
    const at::Tensor before = joined(embedding->lookup(ids));
    CHECK(copy->plan() == embedding->plan());
    CHECK(at::equal(joined(copy->lookup(ids)), before));
    for (auto& parameter : copy->parameters()) parameter.add_(1);
    CHECK(at::equal(joined(embedding->lookup(ids)), before));
    CHECK((before.numel() == 0 || !at::equal(joined(copy->lookup(ids)), before)));
  }
}

TEST_CASE("the printed form states the shape") {
  std::ostringstream text;
  Embedding(three_fields())->pretty_print(text);
  CHECK(text.str() == "afm::nn::Embedding(fields=3, rows=16, embedding_dim=4, wide=true)");
  text.str("");
  Embedding embedding(three_fields());
  embedding->reshape({.ranks = {1, 0, 2}});
  embedding->pretty_print(text);
  CHECK(text.str() ==
        "afm::nn::Embedding(fields=3, rows=16, embedding_dim=4, wide=true, ranks=[1, 0, 2], basis=field)");
}

TEST_CASE("the printed form states joint, tiers and bits") {
  EmbeddingOptions options = three_fields();
  options.ranks = {3, 0, 2};
  options.joint = true;
  options.tiers = tiered_plan(Basis::kField).tiers;
  options.bits = Bits::kInt8;
  std::ostringstream text;
  Embedding(options)->pretty_print(text);
  CHECK(text.str() ==
        "afm::nn::Embedding(fields=3, rows=16, embedding_dim=4, wide=true, ranks=[3, 0, 2], basis=field, joint=true, "
        "tiers=[2, 1, 3], bits=int8, scale=row)");
}

TEST_CASE("options that break a rule are refused") {
  const auto refused = [](EmbeddingOptions options, const std::string& sentence) {
    CHECK_THROWS_MATCHES(Embedding(options), std::invalid_argument, Message(sentence));
  };
  refused({}, "EmbeddingOptions.cardinalities must name at least one field, got none");
  refused({.cardinalities = {3, 0}}, "EmbeddingOptions.cardinalities must each be at least 1, got 0");
  refused({.cardinalities = {3}, .embedding_dim = 0}, "EmbeddingOptions.embedding_dim must be at least 1, got 0");
  refused({.cardinalities = {3}, .slots = {1, 1}},
          "EmbeddingOptions.slots must be empty or have one entry per field (1), got 2");
  refused({.cardinalities = {3}, .slots = {0}}, "EmbeddingOptions.slots must each be at least 1, got 0");
  refused({.cardinalities = {3}, .names = {"a", "b"}},
          "EmbeddingOptions.names must be empty or have one entry per field (1), got 2");
  refused({.cardinalities = {3}, .init_std = -1}, "EmbeddingOptions.init_std must be finite and at least 0, got -1");
  refused({.cardinalities = {3}, .init_std = std::numeric_limits<double>::infinity()},
          "EmbeddingOptions.init_std must be finite and at least 0, got inf");
  refused({.cardinalities = {3}, .embedding_dim = 4, .ranks = {5}},
          "EmbeddingOptions.ranks must each be in [0, 4], got 5");
  refused({.cardinalities = {3}, .ranks = {-1}}, "EmbeddingOptions.ranks must each be in [0, 16], got -1");
}

TEST_CASE("plans and factors that do not fit are refused and change nothing") {
  Embedding embedding(three_fields());
  const auto factors = random_factors(embedding->options, {1, 2, 3}, Basis::kField);
  CHECK_THROWS_MATCHES(embedding->reshape({.ranks = {1, 2}}), std::invalid_argument,
                       Message("EmbeddingOptions.ranks must be empty or have one entry per field (3), got 2"));
  CHECK_THROWS_MATCHES(embedding->reshape({.ranks = {1, 2, 5}}), std::invalid_argument,
                       Message("EmbeddingOptions.ranks must each be in [0, 4], got 5"));
  CHECK_THROWS_MATCHES(embedding->reshape({.ranks = {1, 2, 3}, .activation = FactorActivation::kRelu}),
                       std::invalid_argument, Message("an embedding must have the activation none, got relu"));
  CHECK_THROWS_MATCHES(embedding->set_factors({factors[0]}, {}), std::invalid_argument,
                       Message("an embedding of 3 fields must get as many factors, got 1"));
  CHECK_THROWS_MATCHES(embedding->set_factors({factors[1], factors[0], factors[2]}, {}), std::invalid_argument,
                       Message("the factors of field '0' must be latent [5, k], basis [k, 4] and offset [4]"));
  CHECK_THROWS_MATCHES(embedding->set_factors(factors, {.basis = Basis::kShared}), std::invalid_argument,
                       Message("with a shared basis the basis of every field must be a prefix of the longest one"));
  CHECK_THROWS_MATCHES(embedding->reshape({.units = 5}), std::invalid_argument,
                       Message("units must be 0 in the plan of a layer, only factorize() removes units; got 5"));
  CHECK_THROWS_MATCHES(embedding->set_factors(factors, {.ranks = {1, 2, 2}}), std::invalid_argument,
                       Message("the ranks of a plan must be those of its factors"));
  CHECK_THROWS_MATCHES(embedding->set_factors(factors, {.joint = true}), std::invalid_argument,
                       Message("the factors of field '0' must be latent [5, k], basis [k, 5] and offset [5]"));
  CHECK_THROWS_MATCHES(embedding->set_factors({factors[0], factors[2], factors[1]}, {.basis = Basis::kNone}),
                       std::invalid_argument, Message("the factors of field '1' must be latent [2, k]"));
  CHECK_THROWS_MATCHES(embedding->set_factors(factors, {}, torch::zeros({15})), std::invalid_argument,
                       Message("the wide weights of a plan must have one entry per row"));
  CHECK_THROWS_MATCHES(embedding->set_factors(factors, {.basis = Basis::kNone, .joint = true}, torch::zeros({16})),
                       std::invalid_argument, Message("a plan without wide weights of their own must get none"));
  CHECK_THROWS_MATCHES(
      embedding->set_factors(factors,
                             {.tiers = {{}, {}, {{.rows = 2, .rank = 3}, {.rows = 7, .rank = 1, .shared = true}}}}),
      std::invalid_argument, Message("the latents of field '2' must be equal for ids 2 to 8, which share a row"));
  CHECK(embedding->is_dense());
}

}  // namespace
}  // namespace afm::nn
