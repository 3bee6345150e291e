#include "libafm/train/loss.h"

#include <cmath>

#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

using afm::distillation_loss;
using afm::logloss_of;
using Catch::Matchers::WithinAbs;

namespace {

constexpr double kLossTolerance = 1e-12;

at::Tensor doubles(int64_t count, double spread) { return torch::randn({count}, torch::kFloat64) * spread; }

}  // namespace

TEST_CASE("logloss is the mean cross entropy, with gradient sigmoid(s) - t") {
  torch::manual_seed(1);
  const auto logits = doubles(200, 3).requires_grad_();
  const auto labels = (torch::rand({200}) < 0.4).to(torch::kFloat64);
  const auto loss = logloss_of(logits, labels);
  loss.backward();
  const auto p = torch::sigmoid(logits.detach());
  const auto expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean();
  CHECK_THAT(loss.item<double>(), WithinAbs(expected.item<double>(), kLossTolerance));
  CHECK(torch::allclose(logits.grad() * 200, p - labels, 0, kLossTolerance));
}

TEST_CASE("logloss and its gradient stay finite at extreme logits") {
  const auto logits = torch::tensor({-500.0, 500.0, 60.0}, torch::kFloat32).requires_grad_();
  const auto loss = logloss_of(logits, torch::tensor({1.0, 0.0, 1.0}, torch::kFloat32));
  loss.backward();
  CHECK_THAT(loss.item<double>(), WithinAbs(1000.0 / 3, 1e-4));
  CHECK(logits.grad().isfinite().all().item<bool>());
}

TEST_CASE("distillation is T^2 KL(teacher || student), with gradient T (q - p)") {
  torch::manual_seed(2);
  const double temperature = GENERATE(0.5, 1.0, 4.0);
  const auto student = doubles(100, 2).requires_grad_(), teacher = doubles(100, 2);
  const auto loss = distillation_loss(student, teacher, temperature);
  loss.backward();
  const auto p = torch::sigmoid(teacher / temperature), q = torch::sigmoid(student.detach() / temperature);
  const auto kl = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean();
  CHECK_THAT(loss.item<double>(), WithinAbs(temperature * temperature * kl.item<double>(), kLossTolerance));
  CHECK(torch::allclose(student.grad() * 100, temperature * (q - p), 0, kLossTolerance));
}

TEST_CASE("distillation is zero for equal logits and positive for others") {
  torch::manual_seed(3);
  const auto teacher = doubles(50, 5);
  CHECK_THAT(distillation_loss(teacher, teacher, 2.0).item<double>(), WithinAbs(0.0, kLossTolerance));
  CHECK(distillation_loss(teacher + 0.1, teacher, 2.0).item<double>() > 1e-6);
}

TEST_CASE("losses refuse tensors of different shapes, which would broadcast") {
  CHECK_THROWS_AS(logloss_of(torch::zeros({4, 1}), torch::zeros({4})), c10::Error);
  CHECK_THROWS_AS(distillation_loss(torch::zeros({4}), torch::zeros({4, 1}), 1.0), c10::Error);
}
