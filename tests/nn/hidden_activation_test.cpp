#include "libafm/nn/hidden_activation.h"

#include <cmath>

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>

#include "tests/nn/gradient_check.h"

namespace afm::nn {
namespace {

constexpr double kNormError = 2e-5;  // batch norm in float32: some roundings of sums over the batch

torch::nn::BatchNorm1d random_norm(int64_t width) {
  torch::nn::BatchNorm1d norm(width);
  const torch::NoGradGuard no_grad;
  norm->weight.normal_();
  norm->bias.normal_();
  return norm;
}

torch::nn::BatchNorm1d double_of(torch::nn::BatchNorm1dImpl& norm) {
  torch::nn::BatchNorm1d copy(std::dynamic_pointer_cast<torch::nn::BatchNorm1dImpl>(norm.clone()));
  copy->to(at::kDouble);
  return copy;
}

// Columns of any mean and scale; the layer consumes its input, so the leaf is multiplied by one first.
at::Tensor random_input(int64_t rows, int64_t width) {
  return (torch::randn({rows, width}) * torch::rand({width}).add(0.1) + torch::randn({width})).requires_grad_();
}

at::Tensor activate(const at::Tensor& x, torch::nn::BatchNorm1dImpl* norm, double dropout = 0, bool training = true) {
  return hidden_activation(x * 1, norm, dropout, training);
}

const std::vector<std::vector<int64_t>> kShapes{{2, 1}, {3, 5}, {64, 17}, {65, 33}, {700, 50}};

TEST_CASE("batch norm and ReLU on float32 are torch's in float64: values, gradients, running statistics") {
  torch::manual_seed(1);
  for (const auto& shape : kShapes) {
    auto norm = random_norm(shape[1]);
    auto reference = double_of(*norm);
    const at::Tensor x = random_input(shape[0], shape[1]);
    const at::Tensor exact_x = x.detach().to(at::kDouble).requires_grad_();
    const at::Tensor weights = torch::randn({shape[0], shape[1]}, at::kDouble);
    for (int step = 0; step < 3; ++step) {
      const at::Tensor y = activate(x, norm.get());
      const at::Tensor exact = torch::relu(reference->forward(exact_x));
      CHECK(relative_error(y, exact) < kNormError);
      const auto got = torch::autograd::grad({y}, {x, norm->weight, norm->bias}, {weights.to(at::kFloat)});
      const auto expected = torch::autograd::grad({exact}, {exact_x, reference->weight, reference->bias}, {weights});
      // A column of two rows has a gradient of 0 through its norm, but for eps: compare against what cancels.
      for (std::size_t i = 0; i < got.size(); ++i) CHECK(relative_error(got[i], expected[i]) < 10 * kNormError);
      if (shape[0] > 2) CHECK(relative_error(got[0] * 1.01 + 1e-3, expected[0]) > 10 * kNormError);
    }
    CHECK(relative_error(norm->running_mean, reference->running_mean) < 1e-6);
    CHECK(relative_error(norm->running_var, reference->running_var) < 1e-6);
    CHECK(norm->num_batches_tracked.item<int64_t>() == 3);
  }
}

TEST_CASE("batch statistics stay accurate when the mean is far larger than the deviation") {
  torch::manual_seed(2);
  auto norm = random_norm(4);
  auto reference = double_of(*norm);
  const at::Tensor x = torch::randn({5000, 4}) + 1000;
  const torch::NoGradGuard no_grad;
  const at::Tensor exact = torch::relu(reference->forward(x.to(at::kDouble)));
  CHECK(relative_error(activate(x, norm.get()), exact) < 1e-3);  // x itself is rounded to 6e-5 of a deviation
  CHECK(relative_error(norm->running_var, reference->running_var) < 1e-5);
}

TEST_CASE("what follows a hidden layer has the gradients of its central differences in float64") {
  torch::manual_seed(3);
  auto norm = random_norm(3);
  norm->to(at::kDouble);
  const at::Tensor x = random_input(7, 3).detach().to(at::kDouble).requires_grad_();
  CHECK(gradient_error([&] { return activate(x, norm.get()); }, {x, norm->weight, norm->bias}) < 1e-6);
  CHECK(gradient_error([&] { return activate(x, nullptr); }, {x}) < 1e-6);
}

TEST_CASE("dropout keeps its share, scales what it keeps, and preserves the mean") {
  torch::manual_seed(4);
  const int64_t rows = 4000, width = 50;
  const at::Tensor ones = torch::ones({rows, width});
  for (const double rate : {0.1, 0.2, 0.6, 0.9}) {
    const at::Tensor y = activate(ones, nullptr, rate);
    const at::Tensor kept = y.gt(0).to(at::kDouble);
    const double deviation = std::sqrt(rate * (1 - rate));
    CHECK(std::abs(kept.mean().item<double>() - (1 - rate)) < 5 * deviation / std::sqrt(rows * width));
    CHECK(at::allclose(y.masked_select(y.gt(0)), torch::tensor(static_cast<float>(1 / (1 - rate)))));
    // No row and no column is favoured, and neighbours are independent.
    CHECK((kept.mean(0) - (1 - rate)).abs().max().item<double>() < 6 * deviation / std::sqrt(rows));
    CHECK((kept.mean(1) - (1 - rate)).abs().max().item<double>() < 6 * deviation / std::sqrt(width));
    const at::Tensor centred = (kept - (1 - rate)) / deviation;
    const double bound = 5 / std::sqrt(rows * width);
    CHECK(std::abs((centred.narrow(0, 1, rows - 1) * centred.narrow(0, 0, rows - 1)).mean().item<double>()) < bound);
    CHECK(std::abs((centred.narrow(1, 1, width - 1) * centred.narrow(1, 0, width - 1)).mean().item<double>()) < bound);
  }
}

TEST_CASE("dropout after batch norm cuts the same units in values and gradients") {
  torch::manual_seed(5);
  const double rate = 0.3;
  auto norm = random_norm(20);
  auto reference = double_of(*norm);
  const at::Tensor x = random_input(300, 20);
  const at::Tensor exact_x = x.detach().to(at::kDouble).requires_grad_();
  const at::Tensor y = activate(x, norm.get(), rate);
  const at::Tensor active = torch::relu(reference->forward(exact_x));
  // A unit that ReLU left positive is 0 only when it was dropped.
  const at::Tensor mask = y.detach().gt(0).logical_or(active.detach().le(0)).to(at::kDouble) / (1 - rate);
  const at::Tensor exact = active * mask;
  CHECK(relative_error(y, exact) < kNormError);
  const at::Tensor weights = torch::randn({300, 20}, at::kDouble);
  const auto got = torch::autograd::grad({y}, {x, norm->weight, norm->bias}, {weights.to(at::kFloat)});
  const auto expected = torch::autograd::grad({exact}, {exact_x, reference->weight, reference->bias}, {weights});
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(relative_error(got[i], expected[i]) < 10 * kNormError);
  const double share = y.detach().eq(0).logical_and(active.detach().gt(0)).sum().item<double>() /
                       active.detach().gt(0).sum().item<double>();
  CHECK(std::abs(share - rate) < 0.05);
}

TEST_CASE("without batch norm the result is ReLU and dropout in place") {
  torch::manual_seed(6);
  const at::Tensor x = torch::randn({100, 30}).requires_grad_();
  const at::Tensor product = x * 2;
  const at::Tensor y = hidden_activation(product, nullptr, 0.5, true);
  CHECK(y.data_ptr() == product.data_ptr());
  const at::Tensor kept = y.detach().gt(0).to(at::kFloat);
  CHECK(at::allclose(y.detach(), torch::relu(x.detach() * 2) * kept * 2));
  const at::Tensor weights = torch::randn({100, 30});
  CHECK(at::allclose(torch::autograd::grad({y}, {x}, {weights})[0], weights * kept * 4));
}

TEST_CASE("values, statistics and gradients are the same for every number of threads") {
  for (const bool with_norm : {false, true}) {
    const auto run = [&](int threads) {
      const ThreadCount guard(threads);
      torch::manual_seed(7);
      auto norm = random_norm(40);
      const at::Tensor x = random_input(1000, 40);
      const at::Tensor y = activate(x, with_norm ? norm.get() : nullptr, 0.2);
      const at::Tensor gradient = torch::autograd::grad({y}, {x}, {torch::randn({1000, 40})})[0];
      return std::vector<at::Tensor>{y.detach(), gradient, norm->running_mean, norm->running_var};
    };
    const auto one = run(1), two = run(2), three = run(3);
    for (std::size_t i = 0; i < one.size(); ++i) {
      CHECK(at::equal(one[i], two[i]));
      CHECK(at::equal(one[i], three[i]));
    }
  }
}

TEST_CASE("dropout is restored with the state of the default generator, one draw a call") {
  const at::Tensor ones = torch::ones({50, 20});
  torch::manual_seed(8);
  const at::Tensor first = activate(ones, nullptr, 0.5), second = activate(ones, nullptr, 0.5);
  CHECK_FALSE(at::equal(first, second));
  torch::manual_seed(8);
  CHECK(at::equal(activate(ones, nullptr, 0.5), first));
  CHECK(at::equal(activate(ones, nullptr, 0.5), second));
  // Without dropout nothing is drawn.
  torch::manual_seed(8);
  activate(ones, nullptr, 0.0);
  CHECK(at::equal(activate(ones, nullptr, 0.5), first));
}

TEST_CASE("the gradient that others hold is left as it was") {
  torch::manual_seed(9);
  auto norm = random_norm(6);
  for (torch::nn::BatchNorm1dImpl* used : {norm.get(), static_cast<torch::nn::BatchNorm1dImpl*>(nullptr)}) {
    const at::Tensor x = random_input(80, 6);
    const at::Tensor y = activate(x, used, 0.2);
    const at::Tensor z = y * 3;
    z.retain_grad();
    y.retain_grad();
    const at::Tensor weights = torch::randn({80, 6});
    z.backward(weights, /*retain_graph=*/true);
    const at::Tensor gradient = x.grad().clone();
    CHECK(at::equal(y.grad(), weights * 3));
    z.backward(weights);
    CHECK(at::allclose(x.grad(), 2 * gradient));
  }
}

TEST_CASE("in evaluation mode the running statistics are used and kept, and nothing is dropped") {
  torch::manual_seed(10);
  auto norm = random_norm(5);
  norm->running_mean.normal_();
  norm->running_var.uniform_(0.5, 2);
  norm->eval();
  const at::Tensor mean = norm->running_mean.clone(), x = torch::randn({9, 5});
  const at::Tensor expected =
      torch::relu((x - mean) / (norm->running_var + 1e-5).sqrt() * norm->weight.detach() + norm->bias.detach());
  CHECK(relative_error(activate(x, norm.get(), 0.5, false), expected) < 1e-6);
  CHECK(at::equal(norm->running_mean, mean));
  CHECK(norm->num_batches_tracked.item<int64_t>() == 0);
}

TEST_CASE("NaN goes through, it is not cut to zero") {
  at::Tensor x = torch::ones({4, 3});
  x[1][2] = std::nan("");
  CHECK(activate(x, nullptr)[1][2].isnan().item<bool>());
  auto norm = random_norm(3);
  CHECK(activate(x, norm.get()).select(1, 2).isnan().all().item<bool>());
}

}  // namespace
}  // namespace afm::nn
