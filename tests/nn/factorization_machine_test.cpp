#include <torch/cuda.h>
#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>

#include "libafm/nn/interaction.h"
#include "tests/nn/gradient_check.h"

namespace afm::nn {
namespace {

// All pairs, one after the other.
at::Tensor sum_of_pairs(const at::Tensor& values) {
  at::Tensor sum = values.sum({1, 2}) * 0;  // depends on the values even when there is no pair
  for (int64_t i = 0; i < values.size(1); ++i) {
    for (int64_t j = i + 1; j < values.size(1); ++j) sum = sum + (values.select(1, i) * values.select(1, j)).sum(1);
  }
  return sum;
}

const std::vector<std::vector<int64_t>> kShapes{{0, 3, 4}, {1, 1, 1}, {5, 2, 7}, {600, 10, 10}, {300, 27, 16}};

TEST_CASE("the factorization machine is the sum of the inner products of all pairs") {
  torch::manual_seed(1);
  for (const auto& shape : kShapes) {
    const at::Tensor values = torch::randn(shape, at::kDouble);
    const at::Tensor expected = sum_of_pairs(values);
    CHECK(relative_error(factorization_machine(values), expected) < 1e-13);
    const at::Tensor single = values.to(at::kFloat);
    CHECK(relative_error(factorization_machine(single), expected) < 3e-6);
    const at::Tensor strided = single.transpose(0, 1).contiguous().transpose(0, 1);
    CHECK(at::equal(factorization_machine(strided), factorization_machine(single)));
    if (shape[1] > 1 && shape[0] > 0) CHECK(relative_error(factorization_machine(single) * 1.001, expected) > 3e-6);
  }
}

TEST_CASE("one large value does not drown the products of the others") {
  torch::manual_seed(4);
  const at::Tensor values = torch::randn({200, 10, 6}, at::kFloat);
  values.select(1, 3).select(1, 2).fill_(1e5);
  const at::Tensor expected = sum_of_pairs(values.to(at::kDouble));
  CHECK(relative_error(factorization_machine(values), expected) < 1e-6);
  if (torch::cuda::is_available()) CHECK(relative_error(factorization_machine(values.cuda()).cpu(), expected) < 1e-6);
}

TEST_CASE("the gradient of the factorization machine is its central difference") {
  torch::manual_seed(2);
  const at::Tensor values = torch::randn({3, 4, 5}, at::TensorOptions(at::kDouble).requires_grad(true));
  CHECK(gradient_error([&] { return factorization_machine(values); }, {values}) < 1e-7);
}

TEST_CASE("the float32 gradient of the factorization machine is the float64 one, whatever the threads") {
  torch::manual_seed(3);
  for (const auto& shape : kShapes) {
    const at::Tensor exact_values = torch::randn(shape, at::TensorOptions(at::kDouble).requires_grad(true));
    const at::Tensor values = exact_values.detach().to(at::kFloat).requires_grad_();
    const at::Tensor weights = torch::randn({shape[0]}, at::kDouble);
    const auto exact = torch::autograd::grad({sum_of_pairs(exact_values)}, {exact_values}, {weights})[0];
    const auto run = [&](int threads) {
      const ThreadCount guard(threads);
      return torch::autograd::grad({factorization_machine(values)}, {values}, {weights.to(at::kFloat)})[0];
    };
    const at::Tensor gradient = run(1);
    CHECK(relative_error(gradient, exact) < 3e-6);
    CHECK(at::equal(run(2), gradient));
  }
}

TEST_CASE("values that are no [B, F, D] are refused") {
  CHECK_THROWS_AS(factorization_machine(torch::zeros({3, 4})), c10::Error);
}

}  // namespace
}  // namespace afm::nn
