#include <tuple>
#include <vector>

#include <torch/cuda.h>
#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/nn/linear_relu.h"

namespace afm::nn {
namespace {

double linear_relu_error(const at::Tensor& got, const at::Tensor& exact) {
  const at::Tensor difference = got.detach().cpu().to(at::kDouble) - exact;
  return (difference.norm() / exact.norm().clamp_min(1e-30)).item<double>();
}

}  // namespace

TEST_CASE("a linear layer with its ReLU on a GPU, and its gradients, are those of float64", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  torch::manual_seed(6);
  const auto [type, bound] = GENERATE(std::tuple(at::kFloat, 1e-5), std::tuple(at::kBFloat16, 2e-2));
  for (const auto& [rows, n, m] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
           {1, 3, 5}, {2, 8, 1}, {33, 17, 7}, {1000, 64, 400}, {5000, 40, 24}, {20000, 16, 520}}) {
    CAPTURE(rows, n, m, type);
    const auto parameter = [&](at::IntArrayRef shape) { return torch::randn(shape).cuda().requires_grad_(); };
    const at::Tensor x = torch::randn({rows, n}).to(type).cuda().requires_grad_();
    const at::Tensor weight = parameter({m, n}), bias = parameter({m});
    const auto y = fused_linear_relu(x, weight, bias);
    if (!y) SKIP("a build without AFM_CUDA");
    const at::Tensor incoming = torch::randn({rows, m}).to(type);
    const auto got = torch::autograd::grad({*y}, {x, weight, bias}, {incoming.cuda()});

    const auto exact_of = [](const at::Tensor& tensor) {
      return tensor.detach().cpu().to(at::kDouble).requires_grad_();
    };
    const at::Tensor a = exact_of(x), w = exact_of(weight), b = exact_of(bias);
    const at::Tensor before = at::linear(a, w, b);
    // Units that rounding switches on or off are not compared: the mask is that of the output.
    const at::Tensor on = y->detach().cpu().to(at::kDouble).gt(0).to(at::kDouble);
    CHECK(linear_relu_error(*y, before.detach().relu()) < bound);
    const auto want = torch::autograd::grad({before * on}, {a, w, b}, {incoming.to(at::kDouble)});
    for (std::size_t i = 0; i < want.size(); ++i) {
      CAPTURE(i);
      CHECK(got[i].scalar_type() == (i == 0 ? type : at::kFloat));
      if (want[i].norm().item<double>() == 0) continue;
      CHECK(linear_relu_error(got[i], want[i]) < bound);
      CHECK(linear_relu_error(got[i], want[i] * 1.05) > bound);  // the bound can fail
    }
  }
}

TEST_CASE("a linear layer of one output on a GPU, and its gradients, are those of float64", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  torch::manual_seed(7);
  const auto [type, bound] = GENERATE(std::tuple(at::kFloat, 1e-5), std::tuple(at::kBFloat16, 1e-2));
  for (const auto& [rows, n] :
       std::vector<std::tuple<int64_t, int64_t>>{{1, 1}, {2, 8}, {33, 17}, {1000, 400}, {20000, 24}, {70000, 520}}) {
    CAPTURE(rows, n, type);
    const at::Tensor x = torch::randn({rows, n}).to(type).cuda().requires_grad_();
    const at::Tensor weight = torch::randn({1, n}).cuda().requires_grad_(), bias = torch::randn({1}).cuda();
    bias.requires_grad_();
    const auto y = fused_linear_row(x, weight, bias);
    if (!y) SKIP("a build without AFM_CUDA");
    CHECK(y->scalar_type() == at::kFloat);
    const at::Tensor incoming = torch::randn({rows, 1});
    const auto got = torch::autograd::grad({*y}, {x, weight, bias}, {incoming.cuda()});
    const auto exact_of = [](const at::Tensor& tensor) {
      return tensor.detach().cpu().to(at::kDouble).requires_grad_();
    };
    const at::Tensor a = exact_of(x), w = exact_of(weight), b = exact_of(bias), want_y = at::linear(a, w, b);
    CHECK(linear_relu_error(*y, want_y.detach()) < 1e-5);
    const auto want = torch::autograd::grad({want_y}, {a, w, b}, {incoming.to(at::kDouble)});
    for (std::size_t i = 0; i < want.size(); ++i) {
      CAPTURE(i);
      const double allowed = i == 0 ? bound : 1e-4;  // weights and bias are summed in float32 whatever the type
      CHECK(linear_relu_error(got[i], want[i]) < allowed);
      CHECK(linear_relu_error(got[i], want[i] * 1.05) > allowed);
    }
  }
}

}  // namespace afm::nn
