#include "libafm/linalg/tensor_rules.h"

#include <cmath>

#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>

using Catch::Matchers::Message;

namespace afm {

TEST_CASE("a tensor of the right type and shape passes, -1 standing for any size") {
  CHECK_NOTHROW(require_floats("x", torch::zeros({3, 4}), {-1, 4}));
  CHECK_NOTHROW(require_floats("x", torch::zeros({0, 4}, torch::kBFloat16), {-1, 4}));
}

TEST_CASE("a wrong tensor is refused with the rule and what was given") {
  CHECK_THROWS_MATCHES(require_floats("f: x", torch::zeros({3, 5}), {-1, 4}), std::invalid_argument,
                       Message("f: x must be floating point of shape [*, 4], got Float [3, 5]"));
  CHECK_THROWS_MATCHES(require_floats("f: x", torch::zeros({4}), {-1, 4}), std::invalid_argument,
                       Message("f: x must be floating point of shape [*, 4], got Float [4]"));
  CHECK_THROWS_MATCHES(require_floats("f: x", torch::zeros({2}, torch::kLong), {2}), std::invalid_argument,
                       Message("f: x must be floating point of shape [2], got Long [2]"));
  CHECK_THROWS_MATCHES(require_floats("f: x", {}, {2}), std::invalid_argument,
                       Message("f: x must be floating point of shape [2], got an undefined tensor"));
}

TEST_CASE("NaN and both infinities are refused, the largest finite numbers are not") {
  for (const double bad : {NAN, INFINITY, -INFINITY}) {
    CHECK_THROWS_MATCHES(require_finite("f: x", torch::tensor({1.0, bad})), std::invalid_argument,
                         Message("f: x must be finite, got a NaN or an infinity"));
  }
  CHECK_NOTHROW(require_finite("f: x", torch::tensor({1e308, -1e308, 0.0}, torch::kDouble)));
}

TEST_CASE("one number that is not finite is found wherever it is, in any piece and any view") {
  CHECK(all_finite(torch::zeros({0, 3})));
  CHECK_FALSE(all_finite(torch::tensor(NAN)));
  torch::manual_seed(1);
  for (int trial = 0; trial < 20; ++trial) {
    at::Tensor values = torch::randn({40'000, 17});
    const at::Tensor view = values.narrow(1, 0, 16);
    REQUIRE(all_finite(values));
    const int64_t row = torch::randint(40'000, {1}).item<int64_t>(), column = trial % 17;
    values[row][column] = trial % 2 == 0 ? NAN : INFINITY;
    CHECK_FALSE(all_finite(values));
    CHECK(all_finite(view) == (column == 16));
  }
}

TEST_CASE("ranks outside the range are refused") {
  CHECK_THROWS_MATCHES(require_rank("f: k", 5, 4), std::invalid_argument, Message("f: k must be in [0, 4], got 5"));
  CHECK_THROWS_MATCHES(require_rank("f: k", -1, 4), std::invalid_argument, Message("f: k must be in [0, 4], got -1"));
  CHECK_NOTHROW(require_rank("f: k", 0, 4));
  CHECK_NOTHROW(require_rank("f: k", 4, 4));
}

TEST_CASE("a chunk of rows holds at least one row and at most 64 MB in float64") {
  constexpr int64_t kMost = int64_t{64} << 20;
  for (const int64_t columns : {1, 10, 400, 2000, 4096, 100'000, 20'000'000}) {
    const int64_t rows = rows_per_chunk(columns);
    CHECK(rows >= 1);
    CHECK((rows == 1 || rows * columns * 8 <= kMost));
  }
}

}  // namespace afm
