#include "libafm/nn/fold_algebra.h"

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "libafm/nn/interaction.h"
#include "tests/nn/tiny_ranker.h"

namespace afm::nn {
namespace {

using testing::largest_difference;

const auto kDouble = torch::dtype(torch::kFloat64);

// An embedding in matrices, with latents and dense features of a few rows. Bases are anything, not orthonormal.
struct Case {
  int64_t fields, dim, dense, rows = 7;
  Decoder decoder = {};
  std::vector<at::Tensor> latents = {};  // [F] of [B, k_j]
  at::Tensor numbers = {};               // [B, Q]

  at::Tensor values() const {  // [B, F, D]
    std::vector<at::Tensor> parts;
    for (std::size_t j = 0; j < latents.size(); ++j) {
      parts.push_back(latents[j].mm(decoder.basis[j]) + decoder.offset[static_cast<int64_t>(j)]);
    }
    return torch::stack(parts, 1);
  }
  at::Tensor x() const { return torch::cat({values().flatten(1), numbers}, 1); }
  at::Tensor z() const { return torch::cat(latents, 1); }
  at::Tensor u() const { return torch::cat({z(), numbers}, 1); }
  int64_t width() const { return fields * dim + dense; }
};

int64_t between(int64_t least, int64_t most) { return torch::randint(least, most + 1, {1}).item<int64_t>(); }

Case random_case(int seed, bool shared = false) {
  torch::manual_seed(seed);
  Case c{.fields = between(1, 5), .dim = between(1, 6), .dense = between(0, 3)};
  c.decoder.offset = torch::randn({c.fields, c.dim}, kDouble);
  const auto common = torch::randn({c.dim, c.dim}, kDouble);
  for (int64_t j = 0; j < c.fields; ++j) {
    const int64_t rank = between(0, c.dim);
    c.decoder.basis.push_back(shared ? common.narrow(0, 0, rank) : torch::randn({rank, c.dim}, kDouble));
    c.latents.push_back(torch::randn({c.rows, rank}, kDouble));
  }
  c.numbers = torch::randn({c.rows, c.dense}, kDouble);
  return c;
}

int any_seed() { return GENERATE(range(0, 20)); }

at::Tensor read(const Affine& map, const at::Tensor& u) { return torch::mm(u, map.weight.t()) + map.bias; }

TEST_CASE("a linear layer reads the latents and dense features in place of the embeddings") {
  const Case c = random_case(any_seed());
  const auto weight = torch::randn({3, c.width()}, kDouble), bias = torch::randn({3}, kDouble);
  const Affine folded = absorb(c.decoder, weight, bias);
  CHECK(folded.weight.size(1) == latent_width(c.decoder) + c.dense);
  CHECK(largest_difference(read(folded, c.u()), c.x().mm(weight.t()) + bias) < 1e-11);
  const Affine without_bias = absorb(c.decoder, weight, {});
  CHECK(largest_difference(read(without_bias, c.u()), c.x().mm(weight.t())) < 1e-11);
}

TEST_CASE("control: without the offset in its bias a folded layer is another one") {
  Case c = random_case(3);
  const auto weight = torch::randn({3, c.width()}, kDouble);
  Case without = c;
  without.decoder.offset = torch::zeros_like(c.decoder.offset);
  CHECK(largest_difference(read(absorb(without.decoder, weight, {}), c.u()), c.x().mm(weight.t())) > 1e-2);
}

TEST_CASE("the down factor of a pair absorbs the bases") {
  const Case c = random_case(any_seed());
  const auto down = torch::randn({2, c.width()}, kDouble), down_bias = torch::randn({2}, kDouble);
  const auto up = torch::randn({4, 2}, kDouble);
  const auto before = torch::relu(c.x().mm(down.t()) + down_bias).mm(up.t());
  CHECK(largest_difference(torch::relu(read(absorb(c.decoder, down, down_bias), c.u())).mm(up.t()), before) < 1e-11);
}

TEST_CASE("a gauge makes a basis orthonormal, keeps what it decodes, and keeps nested latents nested") {
  torch::manual_seed(any_seed());
  const int64_t dim = between(1, 8), rank = between(0, dim), kept = between(0, rank);
  const auto basis = torch::randn({rank, dim}, kDouble);
  const auto latent = torch::cat({torch::randn({5, kept}, kDouble), torch::zeros({5, rank - kept}, kDouble)}, 1);
  const Gauge gauge = orthonormal_gauge(basis);
  const auto turned = latent.mm(gauge.rotation.t());
  CHECK(has_orthonormal_rows(gauge.rows, torch::kFloat64));
  CHECK(largest_difference(turned.mm(gauge.rows), latent.mm(basis)) < 1e-12);
  CHECK(largest_difference(turned.narrow(1, kept, rank - kept), torch::zeros({5, rank - kept}, kDouble)) == 0.0);
  // A field that uses a prefix of the basis is decoded by a prefix of the rows.
  const auto cut = latent.narrow(1, 0, kept).mm(gauge.rotation.narrow(0, 0, kept).narrow(1, 0, kept).t());
  CHECK(largest_difference(cut.mm(gauge.rows.narrow(0, 0, kept)), latent.mm(basis)) < 1e-12);
}

TEST_CASE("a basis that is orthonormal keeps its latents, and one of dependent rows still has a gauge") {
  torch::manual_seed(2);
  const auto rows = std::get<0>(torch::linalg_qr(torch::randn({6, 4}, kDouble))).t();
  CHECK(largest_difference(orthonormal_gauge(rows).rotation, torch::eye(4, kDouble)) < 1e-14);
  CHECK(has_orthonormal_rows(rows, torch::kFloat64));
  CHECK_FALSE(has_orthonormal_rows(1.0001 * rows, torch::kFloat32));
  const auto dependent = torch::cat({rows, rows.narrow(0, 0, 1)});
  const Gauge gauge = orthonormal_gauge(dependent);
  CHECK(largest_difference(gauge.rotation.t().mm(gauge.rows), dependent) < 1e-14);
}

TEST_CASE("the factorization machine splits into one of decoded latents, a linear term and a constant") {
  const Case c = random_case(any_seed());
  std::vector<at::Tensor> decoded;
  for (std::size_t j = 0; j < c.latents.size(); ++j) decoded.push_back(c.latents[j].mm(c.decoder.basis[j]));
  const InteractionRest rest = interaction_rest(c.decoder);
  const auto folded = factorization_machine(torch::stack(decoded, 1)) + torch::mv(c.z(), rest.linear) + rest.constant;
  CHECK(largest_difference(folded, factorization_machine(c.values())) < 1e-11);
}

// FM of latents as they are, a missing coordinate being zero.
at::Tensor machine_of_latents(const Case& c, const at::Tensor& rotation) {
  std::vector<at::Tensor> padded;
  for (const at::Tensor& latent : c.latents) {
    const int64_t k = latent.size(1);
    const auto turned = latent.mm(rotation.narrow(0, 0, k).narrow(1, 0, k).t());
    padded.push_back(torch::constant_pad_nd(turned, {0, c.dim - k}));
  }
  return factorization_machine(torch::stack(padded, 1));
}

TEST_CASE("with a shared basis in its gauge fields meet in the space of the latents") {
  const Case c = random_case(any_seed(), /*shared=*/true);
  at::Tensor longest = c.decoder.basis[0];
  for (const at::Tensor& basis : c.decoder.basis) longest = basis.size(0) > longest.size(0) ? basis : longest;
  const Gauge gauge = orthonormal_gauge(longest);
  const InteractionRest rest = interaction_rest(c.decoder);
  const auto constant = torch::mv(c.z(), rest.linear) + rest.constant;
  CHECK(largest_difference(machine_of_latents(c, gauge.rotation) + constant, factorization_machine(c.values())) <
        1e-10);
}

TEST_CASE("control: without the gauge a basis that is not orthonormal is not folded exactly") {
  Case c = random_case(4, /*shared=*/true);
  while (latent_width(c.decoder) < 4 || c.fields < 2) c = random_case(static_cast<int>(between(10, 1000)), true);
  const InteractionRest rest = interaction_rest(c.decoder);
  const auto constant = torch::mv(c.z(), rest.linear) + rest.constant;
  const auto identity = torch::eye(c.dim, kDouble);
  CHECK(largest_difference(machine_of_latents(c, identity) + constant, factorization_machine(c.values())) > 1e-3);
}

TEST_CASE("a cross network of vectors collapses to one small vector per layer") {
  const Case c = random_case(any_seed());
  const int64_t layers = between(1, 4);
  CrossNet cross(CrossNetOptions{.in_features = c.width(), .layers = layers});
  cross->to(torch::kFloat64);
  const torch::NoGradGuard no_grad;
  cross->weight.normal_().mul_(0.5);
  cross->bias.normal_();
  const auto row = torch::randn({c.width()}, kDouble);
  const CrossOnLatents folded = collapse_cross(c.decoder, cross->weight, cross->bias, row);
  const auto p = torch::mm(c.u(), folded.weight.t()) + folded.bias;
  at::Tensor a = torch::ones({c.rows}, kDouble);
  for (int64_t l = 0; l < layers; ++l) a = a * (1.0 + p.select(1, l)) + folded.shift[l];
  const auto before = torch::mv(cross->forward(c.x()), row);
  const double size = 1.0 + before.abs().max().item<double>();
  CHECK(largest_difference(a * p.select(1, layers) + folded.shift[layers], before) < 1e-12 * size);
}

TEST_CASE("batch norm in evaluation is a scale and a bias") {
  torch::manual_seed(any_seed());
  const int64_t width = between(1, 6);
  torch::nn::BatchNorm1d norm(torch::nn::BatchNorm1dOptions(width).eps(1e-3));
  norm->to(torch::kFloat64);
  const torch::NoGradGuard no_grad;
  norm->weight.normal_();
  norm->bias.normal_();
  norm->running_mean.normal_();
  norm->running_var.uniform_(0.1, 3.0);
  norm->eval();
  const auto y = torch::randn({5, width}, kDouble);
  const auto folded = norm_affine(norm->running_mean, norm->running_var, 1e-3, norm->weight, norm->bias);
  CHECK(largest_difference(y * folded.scale + folded.bias, norm->forward(y)) < 1e-13);
  const auto plain = norm_affine(norm->running_mean, norm->running_var, 1e-3, {}, {});
  CHECK(largest_difference((y * plain.scale + plain.bias) * norm->weight + norm->bias, norm->forward(y)) < 1e-13);
}

}  // namespace
}  // namespace afm::nn
