#include "libafm/train/adam.h"

#include <vector>

#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

#include "libafm/core/error.h"

using afm::Adam;
using afm::ParameterGroup;
using Catch::Matchers::Message;

namespace {

// The fused step and LibTorch's own order the same float64 operations differently.
constexpr double kAdamTolerance = 1e-12;

at::Tensor parameter(at::IntArrayRef shape) { return torch::randn(shape, torch::kFloat64).requires_grad_(); }
at::Tensor twin(const at::Tensor& tensor) { return tensor.detach().clone().requires_grad_(); }

void set_gradient(const at::Tensor& tensor, const at::Tensor& gradient) { tensor.mutable_grad() = gradient.clone(); }

}  // namespace

TEST_CASE("Adam with L2 equals torch::optim::Adam over random steps") {
  torch::manual_seed(1);
  const auto table = parameter({50, 4}), bias = parameter({7});
  const auto table_twin = twin(table), bias_twin = twin(bias);
  Adam adam({{{"table"}, {table}, 0.05}, {{"bias"}, {bias}, 0.0}});
  using torch::optim::AdamOptions;
  torch::optim::Adam table_peer({table_twin}, AdamOptions(1e-2).weight_decay(0.05));
  torch::optim::Adam bias_peer({bias_twin}, AdamOptions(1e-2));
  for (int step = 0; step < 30; ++step) {
    for (const auto& [mine, peer] : {std::pair{table, table_twin}, std::pair{bias, bias_twin}}) {
      const auto gradient = torch::randn(mine.sizes(), torch::kFloat64) * (step % 3);
      set_gradient(mine, gradient);
      set_gradient(peer, gradient);
    }
    adam.step(1e-2);
    table_peer.step();
    bias_peer.step();
  }
  CHECK(torch::allclose(table, table_twin, 0, kAdamTolerance));
  CHECK(torch::allclose(bias, bias_twin, 0, kAdamTolerance));
}

TEST_CASE("L2 equals the explicit penalty by autograd") {
  torch::manual_seed(2);
  const auto table = parameter({20, 3}), table_twin = twin(table);
  const auto target = torch::randn({20, 3}, torch::kFloat64);
  Adam with_l2({{{"table"}, {table}, 0.3}}), without({{{"table"}, {table_twin}, 0.0}});
  for (int step = 0; step < 10; ++step) {
    with_l2.zero_grad();
    (table - target).square().sum().backward();
    with_l2.step(1e-2);
    without.zero_grad();
    ((table_twin - target).square().sum() + 0.3 / 2 * table_twin.square().sum()).backward();
    without.step(1e-2);
  }
  CHECK(torch::allclose(table, table_twin, 0, kAdamTolerance));
  CHECK_FALSE(torch::allclose(table, target, 0, 1e-2));
}

TEST_CASE("a parameter without a gradient is left alone, and its steps are not counted") {
  torch::manual_seed(3);
  const auto used = parameter({4}), idle = parameter({4}), idle_before = twin(idle);
  Adam adam({{{"used", "idle"}, {used, idle}, 0.1}});
  set_gradient(used, torch::ones({4}, torch::kFloat64));
  adam.step(1e-2);
  adam.step(1e-2);
  CHECK(torch::equal(idle, idle_before));
  CHECK(adam.state().at("used.step").item<float>() == 2);
  CHECK(adam.state().at("idle.step").item<float>() == 0);
}

TEST_CASE("zero_grad keeps the gradient's memory") {
  const auto weight = parameter({4});
  Adam adam({{{"weight"}, {weight}, 0.0}});
  weight.square().sum().backward();
  const void* memory = weight.grad().data_ptr();
  adam.zero_grad();
  CHECK(weight.grad().data_ptr() == memory);
  CHECK(weight.grad().count_nonzero().item<int64_t>() == 0);
}

TEST_CASE("an optimizer that takes over another's state goes on as that one") {
  torch::manual_seed(4);
  const auto first = parameter({6}), second = twin(first);
  Adam original({{{"w"}, {first}, 0.01}}), other({{{"w"}, {second}, 0.01}});
  const auto gradient = torch::randn({6}, torch::kFloat64);
  set_gradient(first, gradient);
  original.step(1e-2);
  {
    const torch::NoGradGuard no_grad;
    second.copy_(first);
  }
  set_gradient(second, gradient);
  auto state = original.state();
  for (auto& [name, tensor] : state) tensor = tensor.clone();
  other.load_state(state, "the test");
  original.step(1e-2);
  other.step(1e-2);
  CHECK(torch::equal(first, second));
}

TEST_CASE("a state of other parameters is refused") {
  Adam adam({{{"w"}, {parameter({6})}, 0.0}}), wider({{{"w"}, {parameter({7})}, 0.0}}),
      other({{{"v"}, {parameter({6})}, 0.0}});
  CHECK_THROWS_MATCHES(adam.load_state(other.state(), "'a.ckpt'"), afm::FormatError,
                       Message("'a.ckpt' lacks the optimizer's tensor 'w.mean'"));
  CHECK_THROWS_MATCHES(adam.load_state(wider.state(), "'a.ckpt'"), afm::FormatError,
                       Message("'a.ckpt' has the optimizer's tensor 'w.mean' of shape [7], expected [6]"));
  auto surplus = adam.state();
  surplus["v.mean"] = torch::zeros({6});
  CHECK_THROWS_MATCHES(adam.load_state(surplus, "'a.ckpt'"), afm::FormatError,
                       Message("'a.ckpt' has an optimizer's tensor 'v.mean' of no parameter"));
}
