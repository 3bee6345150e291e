#include "libafm/nn/fused_mlp.h"

#include <cmath>
#include <vector>

#include <torch/cuda.h>
#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "libafm/nn/device_share.h"
#include "libafm/nn/mlp.h"

namespace afm::nn {
namespace {

double fused_mlp_error(const at::Tensor& got, const at::Tensor& exact) {
  const at::Tensor difference = got.detach().cpu().to(at::kDouble) - exact.detach();
  return (difference.norm() / exact.detach().norm().clamp_min(1e-30)).item<double>();
}

// As bfloat16 holds it; gradients pass as they are.
at::Tensor rounded(const at::Tensor& x) {
  return x + (x.detach().to(at::kFloat).to(at::kBFloat16).to(at::kDouble) - x.detach());
}

at::Tensor exact_of(const at::Tensor& x) { return x.detach().cpu().to(at::kDouble).requires_grad_(); }

enum class Form { kHidden, kHead, kBeside };

struct MlpShape {
  int64_t rows;
  std::vector<int64_t> widths;  // of x, then of each layer
};

}  // namespace

TEST_CASE("hidden layers as one function on a GPU, and their gradients, are those of float64", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  torch::manual_seed(8);
  const Form form = GENERATE(Form::kHidden, Form::kHead, Form::kBeside);
  const bool with_head = form != Form::kHidden;
  const auto each = GENERATE(from_range(std::vector<MlpShape>{{1, {96, 128}},
                                                              {7, {104, 96, 136}},
                                                              {1000, {624, 400, 400, 400}},
                                                              {4096, {128, 256, 520}},
                                                              {16384, {400, 400, 208}},
                                                              {16385, {400, 400, 208}},
                                                              {70001, {160, 400, 104}}}));
  const int64_t rows = each.rows;
  const std::vector<int64_t>& widths = each.widths;
  CAPTURE(rows, widths, static_cast<int>(form));
  const auto parameter = [](const at::Tensor& values) { return values.cuda().requires_grad_(); };
  const at::Tensor x = parameter(torch::randn(at::IntArrayRef{rows, widths[0]}).to(at::kBFloat16));
  std::vector<PlainLayer> layers;
  std::vector<at::Tensor> inputs{x};
  const auto add = [&](int64_t n, int64_t m) {
    layers.push_back({parameter(torch::randn(at::IntArrayRef{m, n}) / std::sqrt(static_cast<double>(n))),
                      parameter(torch::randn(at::IntArrayRef{m}) / 10)});
    inputs.insert(inputs.end(), {layers.back().weight, layers.back().bias});
  };
  for (std::size_t l = 1; l < widths.size(); ++l) add(widths[l - 1], widths[l]);
  PlainHead head;
  if (form != Form::kHidden) {
    add(widths.back(), 1);
    head = {layers.back().weight, layers.back().bias, {}, {}};
    layers.pop_back();
  }
  if (form == Form::kBeside) {
    head.beside = parameter(torch::randn(rows));
    head.beside_bias = parameter(torch::randn(1));
    inputs.insert(inputs.end(), {head.beside, head.beside_bias});
  }
  const auto y = fused_mlp(x, layers, head);
  if (!y) SKIP("a build without AFM_CUDA or CUTLASS, or another GPU than Hopper's");
  CHECK(y->scalar_type() == (with_head ? at::kFloat : at::kBFloat16));
  const at::Tensor incoming = torch::randn(y->sizes()).to(y->scalar_type());
  const auto got = torch::autograd::grad({*y}, inputs, {incoming.cuda()});

  std::vector<at::Tensor> exact;
  for (const auto& input : inputs) exact.push_back(exact_of(input));
  at::Tensor want = exact[0];
  for (std::size_t l = 0; l < layers.size(); ++l) {
    want = rounded(at::linear(want, rounded(exact[1 + 2 * l]), exact[2 + 2 * l]).relu());
  }
  const std::size_t at_head = 1 + 2 * layers.size();
  if (with_head) want = at::linear(want, exact[at_head], exact[at_head + 1]);
  if (form == Form::kBeside) want = want + exact[at_head + 2].unsqueeze(1) + exact[at_head + 3];
  CHECK(want.detach().abs().max().item<double>() > 1e-3);  // else everything would agree
  CHECK(fused_mlp_error(*y, want) < 4e-3);
  const auto gradients = torch::autograd::grad({want}, exact, {incoming.to(at::kDouble)});
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    CAPTURE(i);
    CHECK(got[i].sizes() == gradients[i].sizes());
    CHECK(got[i].scalar_type() == (i == 0 ? at::kBFloat16 : at::kFloat));
    CHECK(fused_mlp_error(got[i], gradients[i]) < 2e-2);
    CHECK(fused_mlp_error(got[i], gradients[i] * 1.05) > 2e-2);  // the bound can fail
  }
  for (int again = 0; again < 4; ++again) {
    const DeviceShareScope share(again < 2 ? 1 : 4 * again);  // less of the device, the same numbers
    const auto same = torch::autograd::grad({*fused_mlp(x, layers, head)}, inputs, {incoming.cuda()});
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(at::equal(same[i], got[i]));
  }
}

TEST_CASE("hidden layers are one function on a GPU only where it serves their widths and types", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  const auto layer = [](int64_t n, int64_t m, at::ScalarType type = at::kFloat) {
    return PlainLayer{torch::randn(at::IntArrayRef{m, n}).to(type).cuda(),
                      torch::randn(at::IntArrayRef{m}).to(type).cuda()};
  };
  const at::Tensor x = torch::randn({20, 128}).to(at::kBFloat16).cuda();
  if (!fused_mlp(x, {layer(128, 128)}, {})) SKIP("a build without AFM_CUDA or CUTLASS, or another GPU than Hopper's");
  CHECK_FALSE(fused_mlp(x, {}, {}));
  CHECK_FALSE(fused_mlp(x, {layer(128, 132)}, {}));
  CHECK_FALSE(fused_mlp(x, {layer(128, 16)}, {}));
  CHECK_FALSE(fused_mlp(x, {layer(128, 128), layer(128, 20)}, {}));
  CHECK_FALSE(fused_mlp(x, {layer(128, 128, at::kDouble)}, {}));
  CHECK_FALSE(fused_mlp(x.to(at::kFloat), {layer(128, 128)}, {}));
  CHECK_FALSE(fused_mlp(x.narrow(0, 0, 0), {layer(128, 128)}, {}));
}

TEST_CASE("an Mlp in bfloat16 on a GPU is one function or layer after layer, with the same outputs", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  torch::manual_seed(9);
  Mlp mlp(MlpOptions{.in_features = 128, .hidden = {160, 96}, .batch_norm = false});
  mlp->to(at::kCUDA);
  const at::Tensor x = torch::randn({300, 128}).to(at::kBFloat16).cuda();
  const at::Tensor y = mlp->forward(x).detach();
  int64_t seen = 0;
  mlp->layers[0]->set_output_hook([&](const at::Tensor&, const at::Tensor&) { ++seen; });  // is then called for itself
  const at::Tensor step_by_step = mlp->forward(x).detach();
  CHECK(seen == 1);
  CHECK(fused_mlp_error(y, step_by_step.cpu().to(at::kDouble)) < 1e-2);
  CHECK(fused_mlp_error(y, step_by_step.cpu().to(at::kDouble) * 1.05) > 1e-2);
}

}  // namespace afm::nn
