#include "libafm/train/parameter_groups.h"

#include <string>
#include <vector>

#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>

#include "libafm/nn/interaction.h"
#include "tests/train/planted.h"

using afm::parameter_groups;
using afm::testing::Network;
using Names = std::vector<std::string>;

TEST_CASE("tables, weight matrices and the rest get their own L2") {
  const Network network;
  const auto groups = parameter_groups(network, 0.5, 0.25);
  REQUIRE(groups.size() == 3);
  CHECK(groups[0].names == Names{"embedding.weight"});
  CHECK(groups[0].l2 == 0.5);
  CHECK(groups[1].names == Names{"hidden.weight", "head.weight"});
  CHECK(groups[1].l2 == 0.25);
  CHECK(groups[2].names == Names{"hidden.bias", "norm.weight", "norm.bias", "head.bias"});
  CHECK(groups[2].l2 == 0.0);
  CHECK(groups[1].parameters[0].is_same(network.hidden->weight));
}

TEST_CASE("of factorized layers the latent rows and both factors are penalised, a basis is not") {
  Network network;
  network.embedding->reshape({.ranks = {2, 1, 0}});
  network.hidden->reshape({.ranks = {3}});
  const auto groups = parameter_groups(network, 0.5, 0.25);
  CHECK(groups[0].names == Names{"embedding.latent"});
  CHECK(groups[1].names == Names{"hidden.down", "hidden.up", "head.weight"});
  CHECK(groups[2].names.size() == 7);
}

TEST_CASE("the bias matrix of a cross network is no weight matrix") {
  struct Crossing : torch::nn::Module {
    Crossing() { register_module("cross", afm::nn::CrossNet(afm::nn::CrossNetOptions{.in_features = 4, .layers = 2})); }
  };
  const auto groups = parameter_groups(Crossing(), 0.5, 0.25);
  CHECK(groups[1].names == Names{"cross.weight"});
  CHECK(groups[2].names == Names{"cross.bias"});
}

TEST_CASE("a frozen parameter is in no group") {
  Network network;
  network.embedding->weight.set_requires_grad(false);
  const auto groups = parameter_groups(network, 0.5, 0.25);
  CHECK(groups[0].names.empty());
  CHECK(groups[1].names.size() == 2);
}
