#include "libafm/nn/quantize.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <torch/cuda.h>
#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>

#include "libafm/core/error.h"
#include "libafm/nn/integer_weight.h"
#include "libafm/nn/quantize_rounding.h"
#include "tests/core/temporary_folder.h"
#include "tests/nn/gradient_check.h"
#include "tests/nn/same_bits.h"

namespace afm::nn {

using afm::testing::message_of;
using afm::testing::same_bits;

struct RoundingCase {
  at::Tensor x;  // float32 [elements]
  Bits bits = Bits::kInt8;
  ScaleGroups groups;
};

int64_t random_count(int64_t least, int64_t most) { return torch::randint(least, most + 1, {1}).item<int64_t>(); }

// A matrix, or blocks as an embedding has them: rows of several widths, the last column with a scale of its own.
ScaleGroups random_groups(int64_t trial) {
  const auto by = trial % 2 == 0 ? ScaleBy::kRow : ScaleBy::kColumn;
  if (trial % 4 < 2) return matrix_groups(random_count(0, 9), random_count(0, 9), by);
  ScaleGroups groups;
  for (int64_t field = random_count(1, 4); field > 0; --field) {
    const int64_t widest = random_count(0, 5), first_column = groups.count + 1;
    const int64_t last = groups.count++;  // the last column's scale, for all blocks of the field
    if (by == ScaleBy::kColumn) groups.count += widest;
    for (int64_t tier = random_count(1, 3); tier > 0; --tier) {
      const int64_t rows = random_count(1, 20), width = random_count(0, widest), stride = width + 1;
      const int64_t first = by == ScaleBy::kRow ? groups.count : first_column;
      groups.blocks.push_back({groups.elements, rows, stride, width, by, first});
      groups.blocks.push_back({groups.elements + width, rows, stride, 1, ScaleBy::kColumn, last});
      if (by == ScaleBy::kRow) groups.count += rows;
      groups.elements += rows * stride;
    }
  }
  return groups;
}

RoundingCase random_case(int64_t trial) {
  RoundingCase result{{}, trial % 3 == 0 ? Bits::kInt4 : Bits::kInt8, random_groups(trial)};
  result.x = torch::randn({result.groups.elements}) * std::pow(10.0, static_cast<double>(random_count(-6, 6)));
  if (trial % 5 == 0) result.x.mul_(torch::randint(2, {result.groups.elements}));
  return result;
}

// [elements] int64
at::Tensor group_of_each(const ScaleGroups& groups) {
  std::vector<int64_t> group(static_cast<std::size_t>(groups.elements), -1);
  for (const ScaleBlock& block : groups.blocks) {
    for (int64_t r = 0; r < block.rows; ++r) {
      for (int64_t c = 0; c < block.width; ++c) {
        group[static_cast<std::size_t>(block.start + r * block.stride + c)] =
            block.first_group + (block.by == ScaleBy::kRow ? r : c);
      }
    }
  }
  return torch::tensor(group, torch::kLong);
}

// The meaning of a rounding, one group after the other: the scale found by trying bfloat16 numbers, not by bits.
at::Tensor naive_values(const RoundingCase& given) {
  const double limit = given.bits == Bits::kInt8 ? 127.49 : 7.0;
  const at::Tensor group = group_of_each(given.groups), values = torch::zeros_like(given.x);
  for (int64_t g = 0; g < given.groups.count; ++g) {
    const at::Tensor mine = group.eq(g).nonzero().flatten();
    if (mine.numel() == 0) continue;
    const at::Tensor x = given.x.index_select(0, mine);
    const auto largest = static_cast<double>(x.abs().max().item<float>());
    if (largest == 0) continue;
    const auto start = static_cast<float>(largest / limit);
    const double step = std::exp2(std::floor(std::log2(start)) - 7);
    const double scale = std::ceil(start / step) * step;
    std::vector<float> rounded;
    for (int64_t i = 0; i < x.numel(); ++i) {
      const float ratio = x[i].item<float>() / static_cast<float>(scale);
      rounded.push_back(static_cast<float>(std::nearbyint(ratio) * scale));
    }
    values.index_copy_(0, mine, torch::tensor(rounded));
  }
  return values;
}

at::Tensor with_aten(const at::Tensor& x, const RoundingCase& given) {
  if (x.numel() == 0) return x;
  const GroupIndex index = are_of_a_matrix(given.groups) ? GroupIndex() : group_index(given.groups, at::kCPU);
  const Rounded rounded = round_with_aten(x, given.bits, given.groups, index);
  return (rounded.codes * rounded.spread).view(x.sizes());
}

TEST_CASE("rounded values are those of a loop over the groups, with kernels and with ATen") {
  torch::manual_seed(1);
  for (int64_t trial = 0; trial < 200; ++trial) {
    const RoundingCase given = random_case(trial);
    const at::Tensor values = fake_quantize(given.x, given.bits, given.groups);
    CHECK(torch::equal(values, naive_values(given)));
    CHECK(same_bits(values, with_aten(given.x, given)));
  }
}

TEST_CASE("kernels and ATen agree on long columns of two blocks") {
  torch::manual_seed(8);
  const ScaleGroups groups{
      .blocks = {{.start = 0, .rows = 1000, .stride = 4, .width = 3, .by = ScaleBy::kColumn},
                 {.start = 3, .rows = 1000, .stride = 4, .width = 1, .by = ScaleBy::kColumn, .first_group = 3},
                 {.start = 4000, .rows = 300, .stride = 2, .width = 2, .by = ScaleBy::kColumn}},
      .elements = 4600,
      .count = 4};
  const RoundingCase given{torch::randn({groups.elements}), Bits::kInt8, groups};
  CHECK(same_bits(fake_quantize(given.x, given.bits, groups), with_aten(given.x, given)));
  CHECK(torch::equal(with_aten(given.x, given), naive_values(given)));
}

TEST_CASE("a GPU rounds to the bits of the CPU", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  torch::manual_seed(9);
  for (int64_t trial = 0; trial < 100; ++trial) {
    const RoundingCase given = random_case(trial);
    for (const auto dtype : {torch::kFloat32, torch::kFloat64}) {
      const at::Tensor x = given.x.to(dtype);
      CHECK(same_bits(fake_quantize(x.cuda(), given.bits, given.groups).cpu(),
                      fake_quantize(x, given.bits, given.groups)));
    }
  }
}

TEST_CASE("rounding twice is rounding once, bit by bit, in values, codes and scales") {
  torch::manual_seed(2);
  for (int64_t trial = 0; trial < 400; ++trial) {
    const RoundingCase given = random_case(trial);
    const at::Tensor once = fake_quantize(given.x, given.bits, given.groups);
    CHECK(same_bits(fake_quantize(once, given.bits, given.groups), once));
    const at::Tensor wide = fake_quantize(given.x.to(at::kDouble), given.bits, given.groups);
    CHECK(same_bits(fake_quantize(wide, given.bits, given.groups), wide));
    const StoredIntegers first = store_integers(given.x, given.bits, given.groups);
    const StoredIntegers second = store_integers(once, given.bits, given.groups);
    CHECK(same_bits(first.codes, second.codes));
    CHECK(same_bits(first.scale, second.scale));
  }
}

// Why a scale is not just max |x| / 127 rounded up: every significand of a bfloat16 and many of a float32.
TEST_CASE("the largest entry has the largest code for every significand, which 127 for 127.49 would not give") {
  const at::Tensor x = torch::arange(0, 1 << 16, at::kFloat).mul(1.0 / (1 << 16)).add(1).unsqueeze(1);
  for (const Bits bits : {Bits::kInt8, Bits::kInt4}) {
    const ScaleGroups groups = matrix_groups(x.size(0), 1, ScaleBy::kRow);
    const StoredIntegers stored = store_integers(x, bits, groups);
    const at::Tensor values = fake_quantize(x, bits, groups);
    CHECK(torch::equal(values.squeeze(1), stored.scale.to(at::kFloat) * static_cast<double>(largest_code(bits))));
  }
  const at::Tensor plain = x.squeeze(1).to(at::kDouble) / 127;
  const at::Tensor step = torch::exp2(torch::floor(torch::log2(plain)) - 7);
  const at::Tensor scale = torch::ceil(plain / step) * step;
  CHECK(torch::round(x.squeeze(1) / scale).lt(127).any().item<bool>());
}

TEST_CASE("nothing is more than half a scale away, and the largest entry of a group has the largest code") {
  torch::manual_seed(3);
  for (int64_t trial = 0; trial < 200; ++trial) {
    const RoundingCase given = random_case(trial);
    if (given.x.numel() == 0) continue;
    const at::Tensor values = fake_quantize(given.x, given.bits, given.groups);
    const at::Tensor group = group_of_each(given.groups);
    const at::Tensor scale = store_integers(given.x, given.bits, given.groups).scale.to(at::kDouble);
    const at::Tensor each = scale.index_select(0, group);
    CHECK((values.to(at::kDouble) - given.x.to(at::kDouble)).abs().le(each * 0.5).all().item<bool>());
    const at::Tensor most =
        torch::zeros({given.groups.count}, at::kDouble).scatter_reduce(0, group, values.abs().to(at::kDouble), "amax");
    CHECK(torch::equal(most, scale * static_cast<double>(largest_code(given.bits))));
  }
}

TEST_CASE("groups of zeros, of tiny numbers and of what is not finite") {
  const float infinity = std::numeric_limits<float>::infinity();
  const at::Tensor x = torch::tensor({{0.0F, -0.0F, 0.0F},
                                      {1e-39F, -5e-38F, 0.0F},
                                      {1.0F, infinity, 0.0F},
                                      {1.0F, std::nanf(""), 2.0F},
                                      {1e38F, -2e38F, 1.0F}});
  for (const Bits bits : {Bits::kInt8, Bits::kInt4}) {
    const ScaleGroups groups = matrix_groups(5, 3, ScaleBy::kRow);
    for (const at::Tensor& values : {fake_quantize(x, bits, groups), with_aten(x, {x, bits, groups}),
                                     load_integers(store_integers(x, bits, groups), bits, groups).view({5, 3})}) {
      CHECK(same_bits(values.narrow(0, 0, 2), torch::zeros({2, 3})));
      CHECK(values[2].isnan().all().item<bool>());
      CHECK(values[3].isnan().all().item<bool>());
      CHECK(values[4].isfinite().all().item<bool>());
    }
  }
}

TEST_CASE("the gradient of a rounding is the identity, in both precisions") {
  torch::manual_seed(4);
  for (int64_t trial = 0; trial < 24; ++trial) {
    const RoundingCase given = random_case(trial);
    for (const auto dtype : {torch::kFloat32, torch::kFloat64}) {
      const at::Tensor x = given.x.to(dtype).requires_grad_();
      const at::Tensor weights = torch::randn_like(x);
      const at::Tensor values = fake_quantize(x, given.bits, given.groups);
      CHECK(same_bits(values, fake_quantize(x.detach(), given.bits, given.groups)));
      CHECK(same_bits(torch::autograd::grad({(values * weights).sum()}, {x})[0], weights));
    }
  }
}

TEST_CASE("the result does not depend on the number of threads") {
  torch::manual_seed(5);
  for (const auto by : {ScaleBy::kRow, ScaleBy::kColumn}) {
    const at::Tensor x = torch::randn({30011, 7});
    const ThreadCount one(1);
    const at::Tensor serial = fake_quantize(x, Bits::kInt4, matrix_groups(30011, 7, by));
    const ThreadCount three(3);
    CHECK(same_bits(fake_quantize(x, Bits::kInt4, matrix_groups(30011, 7, by)), serial));
  }
}

TEST_CASE("stored integers load to the rounded values, also an odd number of them") {
  torch::manual_seed(6);
  for (int64_t trial = 0; trial < 200; ++trial) {
    const RoundingCase given = random_case(trial);
    const StoredIntegers stored = store_integers(given.x, given.bits, given.groups);
    CHECK(static_cast<int64_t>(stored.codes.nbytes() + stored.scale.nbytes()) ==
          stored_bytes(given.bits, given.groups));
    CHECK(stored.codes.dtype() == (given.bits == Bits::kInt8 ? torch::kInt8 : torch::kUInt8));
    CHECK(stored.scale.dtype() == torch::kBFloat16);
    CHECK(same_bits(load_integers(stored, given.bits, given.groups), fake_quantize(given.x, given.bits, given.groups)));
  }
}

TEST_CASE("two int4 share a byte, the first in the low half") {
  const at::Tensor x = torch::tensor({7.0F, -7.0F, 1.0F, -1.0F, 3.0F});
  const StoredIntegers stored = store_integers(x, Bits::kInt4, matrix_groups(1, 5, ScaleBy::kRow));
  CHECK(torch::equal(stored.codes, torch::tensor({0x97, 0xF1, 0x03}, torch::kUInt8)));
  CHECK(stored.scale.item<float>() == 1.0F);
}

TEST_CASE("integers that a file should not hold are refused by what is wrong") {
  const ScaleGroups groups = matrix_groups(1, 5, ScaleBy::kRow);
  const auto refusal = [&](Bits bits, const at::Tensor& codes, const at::Tensor& scale) {
    return message_of<FormatError>([&] { load_integers({codes, scale}, bits, groups); });
  };
  const at::Tensor scale = torch::ones({1}, torch::kBFloat16);
  const at::Tensor bytes = torch::zeros({3}, torch::kUInt8), eight = torch::zeros({5}, torch::kInt8);
  CHECK(refusal(Bits::kInt8, eight.narrow(0, 0, 4), scale) == "its codes must be Char [5], got Char [4]");
  CHECK(refusal(Bits::kInt8, bytes, scale) == "its codes must be Char [5], got Byte [3]");
  CHECK(refusal(Bits::kInt4, bytes.narrow(0, 0, 2), scale) == "its codes must be Byte [3], got Byte [2]");
  CHECK(refusal(Bits::kInt4, {}, scale) == "its codes must be Byte [3], got none []");
  CHECK(refusal(Bits::kInt8, eight, torch::ones({1})) == "its scale must be BFloat16 [1], got Float [1]");
  CHECK(refusal(Bits::kInt8, eight, torch::ones({2}, torch::kBFloat16)) ==
        "its scale must be BFloat16 [1], got BFloat16 [2]");
  CHECK(refusal(Bits::kInt8, eight, -scale) == "its scales must be at least 0");
  CHECK(refusal(Bits::kInt8, torch::full({5}, -128, torch::kInt8), scale) ==
        "its codes must be at least -127, got -128");
  CHECK(refusal(Bits::kInt4, torch::tensor({0x80, 0, 0}, torch::kUInt8), scale) ==
        "its codes must be at least -7, got -8");
  CHECK(refusal(Bits::kInt4, torch::tensor({0, 0, 0x10}, torch::kUInt8), scale) ==
        "the unused half of the last byte of its codes must be 0, got 1");
  CHECK(refusal(Bits::kInt4, torch::tensor({0, 0, 0x0F}, torch::kUInt8), scale).empty());
}

TEST_CASE("the scale that is chosen is the one with the smaller error") {
  torch::manual_seed(7);
  const at::Tensor even = torch::randn({40, 12});
  const at::Tensor magnitudes = torch::logspace(-3, 3, 40).unsqueeze(1);
  for (const Bits bits : {Bits::kInt8, Bits::kInt4}) {
    CHECK(choose_scale_by(even * magnitudes, bits) == ScaleBy::kRow);
    CHECK(choose_scale_by((even * magnitudes).t(), bits) == ScaleBy::kColumn);
    CHECK(choose_scale_by(torch::zeros({3, 4}), bits) == ScaleBy::kRow);
    CHECK(choose_scale_by(torch::zeros({0, 4}), bits) == ScaleBy::kRow);
  }
  CHECK_THROWS_AS(choose_scale_by(torch::zeros({3}), Bits::kInt8), c10::Error);
}

TEST_CASE("values are kept while the parameter stays, without gradient only") {
  IntegerWeight weight(Bits::kInt8, matrix_groups(4, 3, ScaleBy::kRow));
  at::Tensor x = torch::randn({4, 3}).requires_grad_();
  const auto expected = [&] { return fake_quantize(x.detach(), Bits::kInt8, weight.groups); };
  const torch::NoGradGuard no_grad;
  const at::Tensor kept = weight.values(x, true);
  CHECK(weight.values(x, true).is_same(kept));
  x.add_(1);
  CHECK(torch::equal(weight.values(x, true), expected()));
  x.set_data(torch::randn({4, 3}));
  CHECK(torch::equal(weight.values(x, true), expected()));
  CHECK_FALSE(weight.values(x, false).is_same(weight.values(x, false)));
  // A change that LibTorch does not count: a training step or a change of mode lies between.
  for (const bool training_step : {true, false}) {
    weight.values(x, true);
    x.variable_data().add_(1);
    if (training_step) {
      const torch::AutoGradMode with_gradient(true);
      CHECK(weight.values(x, true).requires_grad());
    } else {
      weight.forget();
    }
    CHECK(torch::equal(weight.values(x, true), expected()));
  }
}

}  // namespace afm::nn
