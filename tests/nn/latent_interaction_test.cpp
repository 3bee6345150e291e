#include "libafm/nn/latent_interaction.h"

#include <memory>
#include <stdexcept>

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "libafm/nn/interaction.h"
#include "tests/core/temporary_folder.h"
#include "tests/nn/tiny_ranker.h"

namespace afm::nn {
namespace {

using testing::largest_difference;
using testing::message_of;
using testing::numerical_gradient;

const auto kDoubles = torch::dtype(torch::kFloat64);

std::vector<int64_t> random_ranks() {
  std::vector<int64_t> ranks;
  const auto fields = torch::randint(1, 6, {1}).item<int64_t>();
  for (int64_t j = 0; j < fields; ++j) ranks.push_back(torch::randint(0, 5, {1}).item<int64_t>());
  return ranks;
}

// Every field as [B, width]: through its basis, or as it is with zeros behind.
at::Tensor fields_of(const LatentMachineImpl& machine, const at::Tensor& latents, int64_t width) {
  std::vector<at::Tensor> fields;
  int64_t first = 0;
  for (const int64_t rank : machine.options.ranks) {
    const auto own = latents.narrow(1, first, rank);
    fields.push_back(machine.basis.defined() ? own.mm(machine.basis.narrow(0, first, rank))
                                             : torch::constant_pad_nd(own, {0, width - rank}));
    first += rank;
  }
  return torch::stack(fields, 1);
}

TEST_CASE("the machine on latents is the factorization machine of the fields that they decode to") {
  torch::manual_seed(GENERATE(range(0, 10)));
  const int64_t dim = GENERATE(0, 3, 6);
  LatentMachine machine(LatentMachineOptions{.ranks = random_ranks(), .embedding_dim = dim});
  machine->to(torch::kFloat64);
  int64_t width = 0;
  for (const int64_t rank : machine->options.ranks) width += rank;
  const auto latents = torch::randn({6, width}, kDoubles);
  const auto expected = factorization_machine(fields_of(*machine, latents, 5));
  CHECK(largest_difference(machine->forward(latents), expected) < 1e-12);
}

TEST_CASE("the machine on latents is differentiable in latents and basis") {
  torch::manual_seed(1);
  LatentMachine machine(LatentMachineOptions{.ranks = {2, 0, 3}, .embedding_dim = 4});
  machine->to(torch::kFloat64);
  auto latents = torch::randn({4, 5}, kDoubles).requires_grad_();
  const auto loss = [&] { return machine->forward(latents).square().sum(); };
  loss().backward();
  CHECK(largest_difference(latents.grad(), numerical_gradient(latents, loss)) < 1e-6);
  CHECK(largest_difference(machine->basis.grad(), numerical_gradient(machine->basis, loss)) < 1e-6);
}

TEST_CASE("a clone of the machine has its own basis and the same values") {
  torch::manual_seed(2);
  LatentMachine machine(LatentMachineOptions{.ranks = {1, 2}, .embedding_dim = 4});
  const auto copy = std::dynamic_pointer_cast<LatentMachineImpl>(machine->clone());
  const auto latents = torch::randn({3, 3});
  CHECK(torch::equal(copy->forward(latents), machine->forward(latents)));
  CHECK_FALSE(copy->basis.is_same(machine->basis));
  LatentMachine bare(LatentMachineOptions{.ranks = {1, 2}});
  CHECK(bare->parameters().empty());
}

TEST_CASE("the cross network on latents follows its recursion and is differentiable") {
  torch::manual_seed(3);
  LatentCross cross(LatentCrossOptions{.in_features = 4, .layers = 2});
  cross->to(torch::kFloat64);
  {
    const torch::NoGradGuard no_grad;
    cross->bias.normal_();
    cross->shift.normal_();
  }
  const auto u = torch::randn({5, 4}, kDoubles);
  const auto p = torch::mm(u, cross->weight.t()) + cross->bias;
  const auto first = 1.0 + p.select(1, 0) + cross->shift[0];
  const auto second = first * (1.0 + p.select(1, 1)) + cross->shift[1];
  CHECK(largest_difference(cross->forward(u), second * p.select(1, 2) + cross->shift[2]) < 1e-12);
  const auto loss = [&] { return cross->forward(u).square().sum(); };
  loss().backward();
  for (const at::Tensor& parameter : {cross->weight, cross->bias, cross->shift}) {
    CHECK(largest_difference(parameter.grad(), numerical_gradient(parameter, loss)) < 1e-4);
  }
}

TEST_CASE("bad options of the layers on latents are refused with one sentence") {
  const auto machine = [](std::vector<int64_t> ranks, int64_t dim) {
    return message_of<std::invalid_argument>(
        [&] { LatentMachine made(LatentMachineOptions{.ranks = ranks, .embedding_dim = dim}); });
  };
  CHECK(machine({}, 4) == "LatentMachineOptions.ranks must name a field, got none");
  CHECK(machine({2, -1}, 4) == "LatentMachineOptions.ranks must each be at least 0, got -1");
  CHECK(machine({2}, -4) == "LatentMachineOptions.embedding_dim must be at least 0, got -4");
  const auto cross = [](int64_t width, int64_t layers) {
    return message_of<std::invalid_argument>(
        [&] { LatentCross made(LatentCrossOptions{.in_features = width, .layers = layers}); });
  };
  CHECK(cross(0, 1) == "LatentCrossOptions.in_features must be at least 1, got 0");
  CHECK(cross(1, 0) == "LatentCrossOptions.layers must be at least 1, got 0");
}

}  // namespace
}  // namespace afm::nn
