#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include "tests/serve/every_simd.h"

namespace afm::serve {
namespace {

// [F] ranks in [0, 6] and rows of latents, with room between the rows.
struct Latents {
  explicit Latents(Random& random) {
    rows = random.between(1, 20);
    for (int64_t f = random.between(1, 9); f > 0; --f) ranks.push_back(random.between(0, 6));
    for (const int64_t rank : ranks) width += rank;
    stride = width + random.between(0, 4);
    values = random.normals(rows * stride);
  }
  double at(int64_t row, int64_t field, int64_t c) const {
    if (c >= ranks[static_cast<std::size_t>(field)]) return 0;
    int64_t first = 0;
    for (int64_t f = 0; f < field; ++f) first += ranks[static_cast<std::size_t>(f)];
    return values[static_cast<std::size_t>(row * stride + first + c)];
  }
  int64_t fields() const { return static_cast<int64_t>(ranks.size()); }
  int64_t rows = 0, width = 0, stride = 0;
  std::vector<int64_t> ranks;
  std::vector<float> values;
};

constexpr int64_t kWidest = 6;

int64_t padded(int64_t dim) { return (dim + 15) / 16 * 16; }

// [K, dim], each row padded with zeros.
std::vector<float> random_basis(Random& random, int64_t rows, int64_t dim) {
  std::vector<float> basis;
  for (int64_t i = 0; i < rows; ++i) {
    const std::vector<float> row = random.normals(dim);
    basis.insert(basis.end(), row.begin(), row.end());
    basis.resize(static_cast<std::size_t>((i + 1) * padded(dim)));
  }
  return basis;
}

double sum_of_pairs(const Latents& latents, int64_t row) {
  double total = 0;
  for (int64_t i = 0; i < latents.fields(); ++i) {
    for (int64_t j = i + 1; j < latents.fields(); ++j) {
      for (int64_t c = 0; c < kWidest; ++c) total += latents.at(row, i, c) * latents.at(row, j, c);
    }
  }
  return total;
}

// Vectors [F, dim] that the rows of a basis decode from the latents of a row.
std::vector<double> decoded(const Latents& latents, const std::vector<float>& basis, int64_t dim, int64_t row) {
  std::vector<double> vectors;
  std::size_t first = 0;
  for (int64_t f = 0; f < latents.fields(); ++f) {
    const int64_t rank = latents.ranks[static_cast<std::size_t>(f)];
    for (int64_t d = 0; d < dim; ++d) {
      double total = 0;
      for (int64_t i = 0; i < rank; ++i) {
        total += latents.at(row, f, i) * basis[first + static_cast<std::size_t>(i * padded(dim) + d)];
      }
      vectors.push_back(total);
    }
    first += static_cast<std::size_t>(rank * padded(dim));
  }
  return vectors;
}

bool near(double a, double b) { return std::abs(a - b) < 2e-4 * (1 + std::abs(b)); }

TEST_CASE("the factorization machine is the sum over pairs of fields of their inner products") {
  Random random(1);
  for (int repeat = 0; repeat < 100; ++repeat) {
    const int64_t dim = random.between(1, 40);
    Latents latents(random);
    std::ranges::fill(latents.ranks, dim);
    latents.stride = latents.fields() * dim + 2;
    latents.values = random.normals(latents.rows * latents.stride);
    for (const Simd simd : every_simd()) {
      std::vector<float> scratch(static_cast<std::size_t>(dim)), out(static_cast<std::size_t>(latents.rows), 2);
      kernels(simd).factorization_machine(latents.values.data(), latents.stride, latents.rows, latents.fields(), dim,
                                          scratch.data(), out.data());
      for (int64_t r = 0; r < latents.rows; ++r) {
        double expected = 2;
        for (int64_t i = 0; i < latents.fields(); ++i) {
          for (int64_t j = i + 1; j < latents.fields(); ++j) {
            for (int64_t c = 0; c < dim; ++c) expected += latents.at(r, i, c) * latents.at(r, j, c);
          }
        }
        CAPTURE(repeat, simd, dim);
        REQUIRE(near(out[static_cast<std::size_t>(r)], expected));
      }
    }
  }
}

TEST_CASE("latents of unequal ranks meet as if the missing coordinates were zero") {
  Random random(2);
  for (int repeat = 0; repeat < 100; ++repeat) {
    const Latents latents(random);
    for (const Simd simd : every_simd()) {
      std::vector<float> scratch(kWidest), out(static_cast<std::size_t>(latents.rows), 1);
      kernels(simd).prefix_machine(latents.values.data(), latents.stride, latents.rows, latents.ranks.data(),
                                   latents.fields(), scratch.data(), out.data());
      for (int64_t r = 0; r < latents.rows; ++r) {
        CAPTURE(repeat, simd, r);
        REQUIRE(near(out[static_cast<std::size_t>(r)], 1 + sum_of_pairs(latents, r)));
      }
    }
  }
}

TEST_CASE("fields that a basis decodes meet each other and a given sum, in pairs") {
  Random random(3);
  for (int repeat = 0; repeat < 100; ++repeat) {
    const Latents latents(random);
    const int64_t dim = random.between(1, 40);
    const std::vector<float> basis = random_basis(random, latents.width, dim);
    const std::vector<float> start = random.flip() ? random.normals(dim) : std::vector<float>();
    for (const Simd simd : every_simd()) {
      std::vector<float> out(static_cast<std::size_t>(latents.rows), 1);
      const DecodedFields fields{
          .ranks = latents.ranks.data(), .count = latents.fields(), .basis = basis.data(), .dim = dim};
      kernels(simd).decoded_machine(latents.values.data(), latents.stride, latents.rows, fields,
                                    start.empty() ? nullptr : start.data(), out.data());
      for (int64_t r = 0; r < latents.rows; ++r) {
        const std::vector<double> vectors = decoded(latents, basis, dim, r);
        double expected = 1, size = 1;
        for (int64_t d = 0; d < dim; ++d) {
          double all = start.empty() ? 0 : start[static_cast<std::size_t>(d)], own = 0;
          for (int64_t f = 0; f < latents.fields(); ++f) {
            const double one = vectors[static_cast<std::size_t>(f * dim + d)];
            all += one;
            own += one * one;
          }
          expected += 0.5 * (all * all - own);
          size += 0.5 * (all * all + own);
        }
        CAPTURE(repeat, simd, r, dim);
        REQUIRE(std::abs(out[static_cast<std::size_t>(r)] - expected) < 2e-6 * size);
      }
    }
  }
}

TEST_CASE("vectors of any length are multiplied and added") {
  Random random(4);
  for (int64_t n = 0; n < 100; ++n) {
    const std::vector<float> a = random.normals(n), b = random.normals(n), y = random.normals(n);
    for (const Simd simd : every_simd()) {
      std::vector<float> scaled = y, product = y;
      kernels(simd).axpy(0.5F, a.data(), scaled.data(), n);
      kernels(simd).multiply_add(a.data(), b.data(), product.data(), n);
      double inner = 0;
      for (std::size_t i = 0; i < y.size(); ++i) {
        inner += static_cast<double>(a[i]) * b[i];
        REQUIRE(near(scaled[i], y[i] + 0.5 * a[i]));
        REQUIRE(near(product[i], y[i] + static_cast<double>(a[i]) * b[i]));
      }
      REQUIRE(near(kernels(simd).dot(a.data(), b.data(), n), inner));
    }
  }
}

}  // namespace
}  // namespace afm::serve
