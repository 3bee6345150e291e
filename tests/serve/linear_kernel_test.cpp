#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include "tests/serve/every_simd.h"

namespace afm::serve {
namespace {

// A layer of random shape and form with its inputs, the outputs in float64, and what each may be wrong by.
struct Case {
  Case(Random& random, Bits chosen, int64_t most_rows) : bits(chosen) {
    m = random.between(1, 75), n = random.between(1, 100), rows = random.between(1, most_rows);
    x_stride = n + random.between(0, 5), y_stride = m + random.between(0, 5);
    x = random.normals(rows * x_stride);
    if (random.flip())
      std::ranges::replace_if(
          x, [](float value) { return value < 0; }, 0.0F);  // as behind a ReLU
    row_scale = random.flip() ? random.normals(m) : std::vector<float>();
    column_scale = random.flip() ? random.normals(n) : std::vector<float>();
    bias = random.flip() ? random.normals(m) : std::vector<float>();
    relu = random.flip();
    if (bits == Bits::kFloat) {
      weights = random.normals(m * n);
    } else {
      Codes codes(random, bits, m * n);
      weights = codes.values;
      bytes = codes.bytes;
    }
  }

  Matrix matrix() const {
    return Matrix({.bits = bits,
                   .elements = bits == Bits::kFloat ? static_cast<const void*>(weights.data()) : bytes.data(),
                   .rows = m,
                   .columns = n,
                   .row_scale = row_scale.empty() ? nullptr : row_scale.data(),
                   .column_scale = column_scale.empty() ? nullptr : column_scale.data()});
  }

  // [rows, m] and, by `magnitude`, the sum of the absolute values of the terms; with integer weights, of terms as large
  // as that of the row's largest activation: see Note [Three bytes] in kernels_vnni.cpp.
  std::vector<double> expected(std::vector<double>& magnitude) const {
    std::vector<double> y;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = 0; i < m; ++i) {
        double total = bias.empty() ? 0 : bias[static_cast<std::size_t>(i)], size = std::abs(total);
        for (int64_t j = 0; j < n; ++j) {
          const double term = activation(r, j) * weight(i, j);
          total += term;
          size += bits == Bits::kFloat ? std::abs(term) : largest_activation(r) * std::abs(weight(i, j));
        }
        y.push_back(relu ? std::max(total, 0.0) : total);
        magnitude.push_back(size);
      }
    }
    return y;
  }

  double weight(int64_t i, int64_t j) const {
    const double value = weights[static_cast<std::size_t>(i * n + j)];
    return row_scale.empty() ? value : value * row_scale[static_cast<std::size_t>(i)];
  }

  double activation(int64_t r, int64_t j) const {
    const double value = x[static_cast<std::size_t>(r * x_stride + j)];
    return column_scale.empty() ? value : value * column_scale[static_cast<std::size_t>(j)];
  }

  double largest_activation(int64_t r) const {
    double largest = 0;
    for (int64_t j = 0; j < n; ++j) largest = std::max(largest, std::abs(activation(r, j)));
    return largest;
  }

  std::vector<float> computed(Simd simd, const Matrix& from) const {
    std::vector<float> y(static_cast<std::size_t>(rows * y_stride), kUntouched);
    std::vector<float> scratch(static_cast<std::size_t>(from.scratch_floats()) + 16);
    const auto misaligned = reinterpret_cast<std::uintptr_t>(scratch.data()) % 64 / sizeof(float);
    kernels(simd).linear(from.packed(), {.x = x.data(),
                                         .x_stride = x_stride,
                                         .rows = rows,
                                         .bias = bias.empty() ? nullptr : bias.data(),
                                         .y = y.data(),
                                         .y_stride = y_stride,
                                         .relu = relu,
                                         .scratch = scratch.data() + (16 - misaligned) % 16});
    return y;
  }

  static constexpr float kUntouched = 12345;
  Bits bits;
  int64_t m = 0, n = 0, rows = 0, x_stride = 0, y_stride = 0;
  std::vector<float> x, weights, row_scale, column_scale, bias;
  std::vector<uint8_t> bytes;
  bool relu = false;
};

// How many times the rounding of one float32 the worst output is wrong by; infinity when what lies between the rows of
// y was written to.
double worst_error(const Case& one, Simd simd, const std::vector<double>& expected,
                   const std::vector<double>& magnitude) {
  const std::vector<float> y = one.computed(simd, one.matrix());
  double worst = 0;
  for (int64_t r = 0; r < one.rows; ++r) {
    for (int64_t i = 0; i < one.y_stride; ++i) {
      const float value = y[static_cast<std::size_t>(r * one.y_stride + i)];
      if (i >= one.m) {
        if (value != Case::kUntouched) return std::numeric_limits<double>::infinity();
        continue;
      }
      const auto index = static_cast<std::size_t>(r * one.m + i);
      worst = std::max(worst, std::abs(value - expected[index]) / (magnitude[index] * 0x1p-24));
    }
  }
  return worst;
}

constexpr double kRoundings = 16;  // of a sum of up to 100 terms

TEST_CASE("a linear layer equals its sum in float64, whatever its shape, weights and instruction set") {
  Random random(1);
  for (int repeat = 0; repeat < 300; ++repeat) {
    const Case one(random, static_cast<Bits>(repeat % 3), repeat % 2 == 0 ? 4 : 40);
    std::vector<double> magnitude;
    const std::vector<double> expected = one.expected(magnitude);
    for (const Simd simd : every_simd()) {
      CAPTURE(repeat, simd, one.m, one.n, one.rows);
      REQUIRE(worst_error(one, simd, expected, magnitude) < kRoundings);
    }
  }
}

TEST_CASE("the comparison of linear layers notices a weight that is wrong by a thousandth") {
  Random random(2);
  Case one(random, Bits::kFloat, 4);
  std::vector<double> magnitude;
  one.relu = false;
  one.x[0] = 1;
  const std::vector<double> expected = one.expected(magnitude);
  one.weights[0] += 1e-3F;
  for (const Simd simd : every_simd()) CHECK(worst_error(one, simd, expected, magnitude) > kRoundings);
}

TEST_CASE("batches beyond a block of rows equal the rows one by one") {
  Random random(3);
  for (const Bits bits : {Bits::kFloat, Bits::kInt8, Bits::kInt4}) {
    Case one(random, bits, 1);
    one.rows = 2 * kLinearRows + 5;
    one.x = random.normals(one.rows * one.x_stride);
    std::vector<double> magnitude;
    const std::vector<double> expected = one.expected(magnitude);
    for (const Simd simd : every_simd()) CHECK(worst_error(one, simd, expected, magnitude) < kRoundings);
  }
}

TEST_CASE("an activation that is not a number or infinite does not become a number in a linear layer") {
  Random random(4);
  for (const Bits bits : {Bits::kFloat, Bits::kInt8, Bits::kInt4}) {
    Case one(random, bits, 1);
    one.rows = 3, one.m = 40, one.n = 9;
    one.x_stride = 9, one.y_stride = 40;
    one.x = random.normals(3 * one.x_stride);
    const int64_t count = one.m * one.n;
    one.weights.assign(static_cast<std::size_t>(count), 1);
    one.bytes.assign(static_cast<std::size_t>(count), bits == Bits::kInt8 ? 1 : 0x11);
    one.row_scale.clear();
    one.column_scale.clear();
    one.bias.clear();
    one.x[9 + 3] = std::numeric_limits<float>::quiet_NaN();
    one.x[18 + 3] = std::numeric_limits<float>::infinity();
    for (const Simd simd : every_simd()) {
      const std::vector<float> y = one.computed(simd, one.matrix());
      CHECK(std::isfinite(y[0]));
      CHECK(std::isnan(y[40]));
      CHECK(std::isinf(y[80]));
    }
  }
}

TEST_CASE("an activation far above the others does not cost them their digits") {
  for (const Bits bits : {Bits::kInt8, Bits::kInt4}) {
    const std::vector<uint8_t> ones(20 * 96, bits == Bits::kInt8 ? 1 : 0x11);
    std::vector<uint8_t> bytes = ones;
    for (int64_t i = 0; i < 20; ++i) bytes[static_cast<std::size_t>(bits == Bits::kInt8 ? 96 * i : 48 * i)] &= 0xF0;
    const Matrix matrix({.bits = bits, .elements = bytes.data(), .rows = 20, .columns = 96});
    std::vector<float> x(96, 1e-3F), y(20), scratch(static_cast<std::size_t>(matrix.scratch_floats()));
    x[0] = 1e6F;  // its weight is 0
    for (const Simd simd : every_simd()) {
      kernels(simd).linear(
          matrix.packed(),
          {.x = x.data(), .x_stride = 96, .rows = 1, .y = y.data(), .y_stride = 20, .scratch = scratch.data()});
      for (const float value : y) CHECK(std::abs(value - 0.095F) < 1e-6F);
    }
  }
}

TEST_CASE("sums of integers do not overflow, however many columns there are") {
  for (const int64_t columns : {65536, 70000}) {
    const std::vector<int8_t> codes(static_cast<std::size_t>(5 * columns), 127);
    const Matrix matrix({.bits = Bits::kInt8, .elements = codes.data(), .rows = 5, .columns = columns});
    const std::vector<float> x(static_cast<std::size_t>(columns), 1);
    std::vector<float> y(5), scratch(static_cast<std::size_t>(matrix.scratch_floats()));
    for (const Simd simd : every_simd()) {
      kernels(simd).linear(matrix.packed(), {.x = x.data(), .rows = 1, .y = y.data(), .scratch = scratch.data()});
      const double expected = 127.0 * static_cast<double>(columns);
      for (const float value : y) CHECK(std::abs(value - expected) < 1e-5 * expected);
    }
  }
}

// A layer with three-byte weights, one row of which is zero; behind a ReLU half of the activations are.
Case large_case(Random& random, int64_t m, int64_t n) {
  Case one(random, Bits::kFloat, 1);
  one.rows = 1, one.m = m, one.n = n, one.x_stride = n, one.y_stride = m;
  one.x = random.normals(n);
  for (int64_t j = 0; j < n && random.flip(); ++j) one.x[static_cast<std::size_t>(j)] = 0;
  one.weights = random.normals(m * n);
  std::fill_n(one.weights.begin() + 7 * n, n, 0.0F);
  one.row_scale = random.normals(m);
  one.column_scale.clear();
  one.bias = random.normals(m);
  return one;
}

// Where every weight is as large as the largest, as the error of three bytes allows.
std::vector<double> largest_magnitude(const Case& one) {
  std::vector<double> magnitude;
  for (int64_t i = 0; i < one.m; ++i) {
    double largest = 0, activations = 0;
    for (int64_t j = 0; j < one.n; ++j) {
      largest = std::max(largest, std::abs(one.weight(i, j)));
      activations += std::abs(one.activation(0, j));
    }
    const auto index = static_cast<std::size_t>(i);
    magnitude.push_back(std::abs(static_cast<double>(one.bias[index])) + largest * activations + 1e-30);
  }
  return magnitude;
}

TEST_CASE("a large layer of one row equals its sum in float64, with weights of three bytes") {
  Random random(6);
  for (const auto& [m, n] : {std::pair<int64_t, int64_t>{400, 400}, {65, 1100}, {127, 624}, {300, 257}}) {
    const Case one = large_case(random, m, n);
    std::vector<double> unused;
    const std::vector<double> expected = one.expected(unused), magnitude = largest_magnitude(one);
    const bool packs = best_simd() >= Simd::kAvx512;
    CHECK((one.matrix().packed().three_bytes != nullptr) == packs);
    for (const Simd simd : every_simd()) {
      CAPTURE(m, n, simd);
      CHECK(worst_error(one, simd, expected, magnitude) < 2);
      std::vector<double> wrong = expected;
      wrong[static_cast<std::size_t>(m - 1)] += 1e-5 * magnitude[static_cast<std::size_t>(m - 1)];
      CHECK(worst_error(one, simd, wrong, magnitude) > 2);
    }
  }
}

TEST_CASE("large layers keep floats where three bytes would cost digits") {
  Random random(7);
  Case one = large_case(random, 400, 400);
  one.relu = false;
  const auto has_three_bytes = [&] { return one.matrix().packed().three_bytes != nullptr; };
  for (const float outlier : {100.0F, std::numeric_limits<float>::max(), std::numeric_limits<float>::infinity(),
                              std::numeric_limits<float>::quiet_NaN()}) {
    one.weights[5] = outlier;
    one.row_scale.assign(400, 1.0F);
    CHECK_FALSE(has_three_bytes());
  }
  one.weights[5] = 0;
  one.row_scale.assign(400, 1e-25F);
  CHECK_FALSE(has_three_bytes());
}

TEST_CASE("integers stay integers in memory") {
  Random random(5);
  const std::vector<uint8_t> bytes(320 * 200, 1);
  const auto bytes_of = [&](Bits bits) {
    return Matrix({.bits = bits, .elements = bytes.data(), .rows = 320, .columns = 200}).bytes();
  };
  CHECK(bytes_of(Bits::kInt8) <= 320 * 200 + 4096);
  CHECK(bytes_of(Bits::kInt4) <= 320 * 100 + 4096);
}

TEST_CASE("rows of activations do not share the sets of a cache") {
  for (int64_t n = 1; n < 3000; ++n) {
    CHECK(padded_stride(n) >= n);
    CHECK(padded_stride(n) % 16 == 0);
    CHECK(padded_stride(n) % 256 != 0);
  }
}

}  // namespace
}  // namespace afm::serve
