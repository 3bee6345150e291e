#include <tuple>
#include <vector>

#include <torch/cuda.h>
#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/nn/fused_cross.h"
#include "libafm/nn/interaction.h"

namespace afm::nn {
namespace {

struct CrossCase {
  int64_t rows, n, layers;
};

// Small enough for a float64 reference on the CPU; the fourth has the width of Criteo's fields.
const std::vector<CrossCase> kCrossCases{{1, 1, 1},    {2, 8, 2},     {33, 17, 7},   {300, 624, 3},
                                         {777, 40, 4}, {40, 1500, 3}, {20000, 24, 3}};

double cross_error(const at::Tensor& got, const at::Tensor& exact) {
  const at::Tensor difference = got.detach().cpu().to(at::kDouble) - exact.detach();
  return (difference.norm() / exact.detach().norm().clamp_min(1e-30)).item<double>();
}

// A network whose layers neither grow nor vanish.
CrossNet cross_of(const CrossCase& c, CrossForm form) {
  CrossNet net(CrossNetOptions{.in_features = c.n, .layers = c.layers, .form = form});
  const torch::NoGradGuard no_grad;
  for (auto& parameter : net->parameters()) parameter.normal_(0, 0.5 / std::sqrt(static_cast<double>(c.n)));
  return net;
}

std::vector<at::Tensor> with_first(const at::Tensor& first, std::vector<at::Tensor> rest) {
  rest.insert(rest.begin(), first);
  return rest;
}

// Output and gradients of the network on a GPU with `read` of its x0 read elsewhere too, against float64 on the CPU.
template <typename Fused, typename Exact>
void check_against_float64(CrossNet& net, const at::Tensor& x0, std::vector<at::Tensor> others, double bound,
                           Fused fused, Exact exact) {
  CrossNet twin = std::dynamic_pointer_cast<CrossNetImpl>(net->clone());
  twin->to(at::kDouble);
  net->to(at::kCUDA);
  const at::Tensor x = x0.cuda().requires_grad_(), a = x0.to(at::kDouble).requires_grad_();
  std::vector<at::Tensor> here = with_first(x, net->parameters()), there = with_first(a, twin->parameters());
  for (const at::Tensor& other : others) {
    here.push_back(other.cuda().requires_grad_());
    there.push_back(other.to(at::kDouble).requires_grad_());
  }
  const std::optional<FusedCross> got = fused(*net, x, here.back());
  if (!got) SKIP("a build without AFM_CUDA");
  const at::Tensor want = exact(*twin, a, there.back());
  CHECK(cross_error(got->output, want) < bound);
  CHECK(cross_error(got->output * 1.1, want) > bound);
  CHECK(got->x0.equal(x));

  const at::Tensor incoming = torch::randn(want.sizes()), beside = torch::randn(x0.sizes()).to(x0.scalar_type());
  const auto gradients = torch::autograd::grad({got->output, got->x0}, here,
                                               {incoming.to(got->output.scalar_type()).cuda(), beside.cuda()});
  const auto expected = torch::autograd::grad(
      {want, a}, there, {incoming.to(got->output.scalar_type()).to(at::kDouble), beside.to(at::kDouble)});
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    CHECK(gradients[i].scalar_type() == here[i].scalar_type());
    CHECK(cross_error(gradients[i], expected[i]) < bound);
    CHECK(cross_error(gradients[i] * 1.1, expected[i]) > bound);
  }
}

}  // namespace

TEST_CASE("a cross network of vectors with a row behind it on a GPU, and its gradients, are those of float64",
          "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  torch::manual_seed(8);
  const auto [type, bound] = GENERATE(std::tuple(at::kFloat, 2e-5), std::tuple(at::kBFloat16, 1e-2));
  for (const CrossCase& c : kCrossCases) {
    CAPTURE(c.rows, c.n, c.layers, type);
    CrossNet net = cross_of(c, CrossForm::kVector);
    check_against_float64(
        net, torch::randn({c.rows, c.n}).to(type), {torch::randn({1, c.n})}, bound,
        [](CrossNetImpl& cross, const at::Tensor& x, const at::Tensor& row) {
          return fused_cross_row(x, cross.weight, cross.bias, row);
        },
        [](CrossNetImpl& cross, const at::Tensor& x, const at::Tensor& row) {
          return at::mv(cross.forward(x), row[0]);
        });
  }
}

TEST_CASE("a cross network of matrices on a GPU, and its gradients, are those of float64", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  torch::manual_seed(9);
  const auto [type, bound] = GENERATE(std::tuple(at::kFloat, 2e-5), std::tuple(at::kBFloat16, 3e-2));
  for (const CrossCase& c : kCrossCases) {
    CAPTURE(c.rows, c.n, c.layers, type);
    CrossNet net = cross_of(c, CrossForm::kMatrix);
    check_against_float64(
        net, torch::randn({c.rows, c.n}).to(type), {}, bound,
        [](CrossNetImpl& cross, const at::Tensor& x, const at::Tensor&) {
          std::vector<at::Tensor> parameters;
          for (const Linear& layer : cross.layers) parameters.insert(parameters.end(), {layer->weight, layer->bias});
          return fused_cross_matrices(x, parameters);
        },
        [](CrossNetImpl& cross, const at::Tensor& x, const at::Tensor&) { return cross.forward(x); });
  }
}

TEST_CASE("equal input gives equal bits of a cross network's gradients on a GPU", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  torch::manual_seed(10);
  const CrossCase c{20000, 624, 3};
  CrossNet net = cross_of(c, CrossForm::kVector);
  net->to(at::kCUDA);
  const at::Tensor x = torch::randn({c.rows, c.n}).cuda().requires_grad_(), row = torch::randn({1, c.n}).cuda();
  const auto gradients = [&] {
    const auto found = fused_cross_row(x, net->weight, net->bias, row);
    if (!found) SKIP("a build without AFM_CUDA");
    return torch::autograd::grad({found->output.sum()}, {x, net->weight, net->bias});
  };
  const auto first = gradients(), second = gradients();
  for (std::size_t i = 0; i < first.size(); ++i) CHECK(first[i].equal(second[i]));
}

}  // namespace afm::nn
