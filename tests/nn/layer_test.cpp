#include "libafm/nn/layer.h"

#include <stdexcept>
#include <string>
#include <vector>

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>

#include "tests/core/temporary_folder.h"
#include "tests/nn/tiny_ranker.h"

namespace afm::nn {

using afm::testing::message_of;
using afm::testing::tiny_plan;
using afm::testing::TinyRanker;

// `body` and `again` are one layer under two names; `inside` is a level deeper.
struct SharingImpl : torch::nn::Module {
  SharingImpl() {
    body = register_module("body", Linear(4, 3));
    register_module("again", body);
    register_module("inside", torch::nn::Sequential(Linear(3, 3), torch::nn::ReLU(), Linear(3, 2)));
  }
  Linear body{nullptr};
};

std::vector<std::string> paths_of(torch::nn::Module& root) {
  std::vector<std::string> paths;
  for (const auto& [path, layer] : layers_of(root)) paths.push_back(path);
  return paths;
}

TEST_CASE("layers are found by module path, in order, each shared one once") {
  SharingImpl on_the_stack;
  CHECK(paths_of(on_the_stack) == std::vector<std::string>{"body", "inside.0", "inside.2"});
  CHECK(layers_of(on_the_stack)[0].second == static_cast<Layer*>(on_the_stack.body.get()));
  TinyRanker ranker;
  CHECK(paths_of(ranker) == std::vector<std::string>{"embedding", "hidden", "head"});
}

TEST_CASE("layers made in a blank scope have its type and draw no random numbers, those after it do") {
  const EmbeddingOptions table{.cardinalities = {5, 7}, .embedding_dim = 4, .wide = true};
  torch::manual_seed(1);
  const at::Tensor expected = torch::rand({3});
  torch::manual_seed(1);
  {
    const BlankScope blank(at::kCPU, at::kDouble);
    const Embedding embedding(table);
    Linear linear(4, 3);
    CHECK(embedding->weight.scalar_type() == at::kDouble);
    CHECK(linear->weight.scalar_type() == at::kDouble);
    CHECK(embedding->weight.sizes() == at::IntArrayRef({12, 5}));
    {
      const BlankScope inner(at::kCPU, at::kBFloat16);
      CHECK(Linear(4, 3)->bias.scalar_type() == at::kBFloat16);
    }
    CHECK(Linear(4, 3)->bias.scalar_type() == at::kDouble);
    linear->reset_parameters();
  }
  CHECK(torch::equal(torch::rand({3}), expected));
  torch::manual_seed(1);
  CHECK(Embedding(table)->weight.scalar_type() == at::kFloat);
  CHECK_FALSE(torch::equal(torch::rand({3}), expected));
}

TEST_CASE("a root that is a layer itself has the empty path") {
  Linear layer(2, 2);
  CHECK(paths_of(*layer) == std::vector<std::string>{""});
}

TEST_CASE("the plan that was applied is the plan that is read back") {
  TinyRanker ranker;
  CHECK(rank_plan_of(ranker).empty());
  apply_plan(ranker, tiny_plan());
  CHECK((rank_plan_of(ranker) == tiny_plan()));
  apply_plan(ranker, {{"hidden", {}}});
  CHECK(ranker.hidden->is_dense());
  CHECK_FALSE(ranker.head->is_dense());
}

TEST_CASE("the bits of a dense layer are part of the plan") {
  TinyRanker ranker;
  const RankPlan plan = {{"head", {.bits = Bits::kInt8}},
                         {"hidden", {.ranks = {2}, .bits = Bits::kInt4, .scale = ScaleBy::kColumn}}};
  apply_plan(ranker, plan);
  CHECK((rank_plan_of(ranker) == plan));
  CHECK(ranker.head->is_dense());
}

TEST_CASE("an empty plan changes nothing, and a plan that a layer has already keeps its values") {
  TinyRanker ranker(tiny_plan());
  const auto before = ranker.hidden->down;
  apply_plan(ranker, {});
  apply_plan(ranker, tiny_plan());
  CHECK(ranker.hidden->down.is_same(before));
}

TEST_CASE("a plan for a layer that does not exist names the layers that do") {
  TinyRanker ranker;
  CHECK(message_of<std::invalid_argument>([&] {
          apply_plan(ranker, {{"head", {.ranks = {1}}}, {"hiden", {.ranks = {1}}}});
        }) == "the rank plan names 'hiden', which is no layer of the model; its layers are: embedding, hidden, head");
  CHECK(ranker.head->is_dense());
}

TEST_CASE("ranks that do not fit name the layer") {
  TinyRanker ranker;
  CHECK(message_of<std::invalid_argument>([&] {
          apply_plan(ranker, {{"hidden", {.ranks = {7}}}});
        }) ==
        "the rank plan does not fit layer 'hidden': LinearOptions.rank must be in [0, 6] for a layer [6, 8], got 7");
  CHECK(message_of<std::invalid_argument>([&] {
          apply_plan(ranker, {{"hidden", {.units = 3}}});
        }) ==
        "the rank plan does not fit layer 'hidden': units must be 0 in the plan of a layer, only factorize() removes "
        "units; got 3");
  CHECK(message_of<std::invalid_argument>([&] {
          apply_plan(ranker, {{"hidden", {.ranks = {1}, .joint = true}}});
        }) == "the rank plan does not fit layer 'hidden': a linear layer has neither joint nor tiers");
  CHECK_THROWS_AS(apply_plan(ranker, {{"embedding", {.ranks = {1, 5}}}}), std::invalid_argument);
  CHECK_THROWS_AS(apply_plan(ranker, {{"embedding", {.ranks = {1}}}}), std::invalid_argument);
}

}  // namespace afm::nn
