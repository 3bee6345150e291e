#include <algorithm>
#include <initializer_list>

#include <catch2/catch_test_macros.hpp>

#include "libafm/compress/layer_refit.h"
#include "tests/linalg/hostile_layers.h"

namespace afm::testing {
namespace {

bool finite_tensors(std::initializer_list<at::Tensor> tensors) {
  return std::ranges::all_of(tensors, [](const at::Tensor& t) { return t.isfinite().all().item<bool>(); });
}

}  // namespace

TEST_CASE("refits on hostile inputs are finite and no worse than what they start from") {
  const auto& hostile = GENERATE(from_range(hostile_cases()));
  const auto dtype = GENERATE(torch::kDouble, torch::kFloat);
  const double ridge = GENERATE(0.0, 1e-2);
  torch::manual_seed(14);
  const int64_t m = 5, n = GENERATE(7, 130);  // in float32, from 128 on products are taken as such
  const HostileLayer layer = hostile.make(m, n);
  const at::Tensor x = layer.inputs.to(dtype), y = at::linear(x, layer.weight.to(dtype), layer.bias.to(dtype));
  const Moments rows = moments_of(at::cat({x, y}, 1));
  const AffineMap start{layer.weight * 0.5, layer.bias};
  const double before = affine_error(rows, start), scale = rows.covariance().diagonal().sum().item<double>() + 1e-300;
  INFO(hostile.name << ", n " << n << ", ridge " << ridge << ", error before " << before);

  const AffineMap whole = ridge_refit(rows, start, ridge);
  REQUIRE(finite_tensors({whole.weight, whole.bias}));
  CHECK(affine_error(rows, whole) <= before * (1 + 1e-6) + 1e-5 * scale);
  for (const int64_t k : {0, 2, 5}) {
    const Factors pair = rank_refit(rows, start, k, ridge, {});
    CHECK(finite_tensors({pair.down, pair.down_bias, pair.up, pair.up_bias}));
  }
}

}  // namespace afm::testing
