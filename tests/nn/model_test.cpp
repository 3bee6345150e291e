#include "libafm/nn/model.h"

#include <map>
#include <string>

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>

#include "libafm/nn/model_file.h"
#include "tests/nn/tiny_ranker.h"

namespace afm {

using testing::tiny_ids;
using testing::tiny_plan;
using testing::TinyRanker;

std::map<std::string, GroupSize> groups_of(const torch::nn::Module& module) {
  std::map<std::string, GroupSize> groups;
  for (const auto& size : size_by_group(module)) groups[size.group] = size;
  return groups;
}

// A model whose batch norm has seen data.
std::shared_ptr<TinyRanker> used_ranker(const RankPlan& plan = {}) {
  auto ranker = std::make_shared<TinyRanker>(plan);
  for (int i = 0; i < 3; ++i) ranker->forward({tiny_ids(32), {}, {}});
  return ranker;
}

TEST_CASE("a copy gives the same logits and shares nothing, dense and factorized") {
  for (const auto& plan : {RankPlan{}, tiny_plan()}) {
    const auto ranker = used_ranker(plan);
    ranker->eval();
    const auto copy = copy_of(*ranker);
    const Batch batch{tiny_ids(50), {}, {}};
    const auto before = ranker->forward(batch).detach().clone();
    CHECK(torch::equal(copy->forward(batch), before));
    CHECK((nn::rank_plan_of(*copy) == plan));
    const torch::NoGradGuard no_grad;
    for (auto& [name, tensor] : state_of(*copy)) tensor.fill_(0.5);
    CHECK(torch::equal(ranker->forward(batch), before));
    CHECK_FALSE(torch::equal(copy->forward(batch), before));
  }
}

TEST_CASE("a copy keeps dtype and training mode, module by module") {
  auto ranker = used_ranker();
  ranker->to(torch::kFloat64);
  ranker->norm->eval();
  const auto copy = copy_of(*ranker);
  CHECK(copy->dtype() == torch::kFloat64);
  CHECK(copy->is_training());
  const auto& typed = dynamic_cast<const TinyRanker&>(*copy);
  CHECK_FALSE(typed.norm->is_training());
  CHECK(typed.head->is_training());
  CHECK(torch::equal(typed.norm->running_var, ranker->norm->running_var));
}

TEST_CASE("a model knows its dtype and device") {
  TinyRanker ranker;
  CHECK(ranker.dtype() == torch::kFloat32);
  CHECK(ranker.device() == at::Device(at::kCPU));
  ranker.to(torch::kFloat64);
  CHECK(ranker.dtype() == torch::kFloat64);
}

TEST_CASE("sizes by group separate the wide weights from the table") {
  const auto groups = groups_of(TinyRanker());
  CHECK(groups.at("embedding").parameters == 17 * 4);
  CHECK(groups.at("embedding").bytes == 4 * 17 * 4);
  CHECK(groups.at("wide").parameters == 17);
  CHECK(groups.at("wide").bytes == 4 * 17);
  CHECK(groups.at("hidden").parameters == 8 * 6 + 6);
  // Running mean and variance are float, the number of batches is int64.
  CHECK(groups.at("norm").parameters == 12);
  CHECK(groups.at("norm").bytes == 4 * (12 + 12) + 8);
  CHECK(groups.at("head").parameters == 7);
  CHECK(groups.size() == 5);
}

TEST_CASE("sizes of a factorized model count what it holds") {
  TinyRanker ranker(tiny_plan());
  ranker.to(torch::kFloat64);
  const auto groups = groups_of(ranker);
  // Ranks 2 and 0: latent 10 x 2, basis 2 x 4, offset 2 x 4.
  CHECK(groups.at("embedding").parameters == 20 + 8 + 8);
  CHECK(groups.at("wide").parameters == 17);
  CHECK(groups.at("wide").bytes == 8 * 17);
  CHECK(groups.at("hidden").parameters == 3 * 8 + 3 + 6 * 3 + 6);
  CHECK(groups.at("head").parameters == 1);
}

TEST_CASE("groups add up to the whole, shared tensors counted once") {
  struct SharingImpl : torch::nn::Module {
    SharingImpl() {
      auto ranker = register_module("ranker", std::make_shared<TinyRanker>());
      register_module("again", ranker->hidden.ptr());
      register_parameter("tied", ranker->head->weight);
    }
  };
  const SharingImpl sharing;
  const TinyRanker ranker;
  CHECK(parameter_count(sharing) == parameter_count(ranker));
  CHECK(byte_count(sharing) == byte_count(ranker));
  int64_t parameters = 0, bytes = 0;
  for (const auto& size : size_by_group(sharing)) {
    parameters += size.parameters;
    bytes += size.bytes;
  }
  CHECK(parameters == parameter_count(sharing));
  CHECK(bytes == byte_count(sharing));
  CHECK(groups_of(sharing).at("wide").parameters == 17);
}

TEST_CASE("evaluation mode ends with its scope") {
  TinyRanker ranker;
  {
    const EvaluationMode evaluation(ranker);
    CHECK_FALSE(ranker.norm->is_training());
  }
  CHECK(ranker.norm->is_training());
  ranker.eval();
  { const EvaluationMode evaluation(ranker); }
  CHECK_FALSE(ranker.is_training());
}

}  // namespace afm
