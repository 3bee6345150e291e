#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include "tests/serve/every_simd.h"

namespace afm::serve {
namespace {

uint16_t bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

enum class Scale { kNone, kRow, kColumn };

// A field of a few tiers of falling ranks, some of which share one row, somewhere inside a table.
struct Case {
  Case(Random& random, Bits chosen, Scale chosen_scale) : bits(chosen), scale(chosen_scale) {
    wide = random.flip();
    width = random.between(0, 40);
    int64_t element = random.between(0, 9), row = random.between(0, 3), rank = width;
    for (int64_t t = random.between(1, 3); t > 0; --t) {
      const int64_t rows = random.between(1, 20);
      const bool shared = random.between(0, 3) == 0;
      const int64_t stride = rank + wide, stored = shared ? 1 : rows;
      tiers.push_back({.first = cardinality,
                       .end = cardinality + rows,
                       .start = element,
                       .stride = shared ? 0 : stride,
                       .rank = rank,
                       .scale = row});
      cardinality += rows;
      element += stored * stride;
      if (rank > 0) row += stored;
      rank = random.between(0, rank);
    }
    fill(random, element, row);
  }

  void fill(Random& random, int64_t elements, int64_t rows) {
    if (bits == Bits::kFloat) {
      values = random.normals(elements);
      bytes.resize(values.size() * sizeof(float) + 1);
      if (!values.empty()) std::memcpy(bytes.data() + 1, values.data(), values.size() * sizeof(float));
      offset = 1;  // no alignment is promised
    } else {
      Codes codes(random, bits, elements);
      values = codes.values;
      bytes = codes.bytes;
    }
    bytes.shrink_to_fit();  // so that a sanitizer sees a read behind the end
    for (int64_t i = 0; i < rows; ++i) row_scale.push_back(bfloat16(std::abs(random.normal())));
    column_scale = random.normals(width);
    wide_scale = bits == Bits::kFloat ? 1.0F : random.normal();
  }

  FieldTable table() const {
    return {.bits = bits,
            .elements = bytes.data() + offset,
            .row_scale = scale == Scale::kRow ? row_scale.data() : nullptr,
            .column_scale = scale == Scale::kColumn ? column_scale.data() : nullptr,
            .wide_scale = wide_scale,
            .wide = wide,
            .width = width,
            .tiers = tiers.data()};
  }

  const TierRows& tier_of(int64_t id) const {
    std::size_t t = 0;
    while (id >= tiers[t].end) ++t;
    return tiers[t];
  }

  float expected(int64_t id, int64_t column) const {
    const TierRows& tier = tier_of(id);
    if (column >= tier.rank) return 0;
    const float value = values[static_cast<std::size_t>(tier.start + (id - tier.first) * tier.stride + column)];
    const int64_t row = tier.stride == 0 ? tier.scale : tier.scale + id - tier.first;
    if (scale == Scale::kRow) return value * as_float(row_scale[static_cast<std::size_t>(row)]);
    return scale == Scale::kColumn ? value * column_scale[static_cast<std::size_t>(column)] : value;
  }

  float expected_wide(int64_t id) const {
    const TierRows& tier = tier_of(id);
    if (!wide) return 0;
    return values[static_cast<std::size_t>(tier.start + (id - tier.first) * tier.stride + tier.rank)] * wide_scale;
  }

  static float as_float(uint16_t half) {
    const uint32_t raw = static_cast<uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &raw, sizeof value);
    return value;
  }

  Bits bits;
  Scale scale;
  bool wide = false;
  int64_t width = 0, cardinality = 0;
  std::vector<TierRows> tiers;
  std::vector<float> values, column_scale;
  std::vector<uint8_t> bytes;
  std::vector<uint16_t> row_scale;
  std::size_t offset = 0;
  float wide_scale = 1;
};

// The same table as several fields, with a column between them that must stay.
void check_rows(const Case& one, Simd simd, Random& random) {
  const int64_t rows = random.between(1, 30), fields = random.between(1, 10), id_stride = fields + random.between(0, 2);
  const int64_t step = one.width + 1, stride = fields * step + 2;
  std::vector<FieldPlace> places;
  for (int64_t f = 0; f < fields; ++f) places.push_back({.table = one.table(), .slot = f, .column = f * step});
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < rows * id_stride; ++i)
    ids.push_back(static_cast<int32_t>(random.between(0, one.cardinality - 1)));
  std::vector<float> values(static_cast<std::size_t>(rows * stride), 99), wide(static_cast<std::size_t>(rows), 1);
  kernels(simd).gather(places.data(), fields, ids.data(), id_stride, rows, values.data(), stride, wide.data());
  for (int64_t r = 0; r < rows; ++r) {
    float expected_wide = 1;
    for (int64_t c = 0; c < stride; ++c) {
      const int64_t f = c / step;
      const int64_t id = f < fields ? ids[static_cast<std::size_t>(r * id_stride + f)] : 0;
      const float expected = f < fields && c % step < one.width ? one.expected(id, c % step) : 99;
      REQUIRE(values[static_cast<std::size_t>(r * stride + c)] == expected);
      if (f < fields && c % step == 0) expected_wide += one.expected_wide(id);
    }
    REQUIRE(std::abs(wide[static_cast<std::size_t>(r)] - expected_wide) < 1e-4F * (1 + std::abs(expected_wide)));
  }
  kernels(simd).gather(places.data(), fields, ids.data(), id_stride, rows, values.data(), stride, nullptr);
}

TEST_CASE("gathered rows are the table's, bit by bit, whatever its tiers, scales and instruction set") {
  Random random(1);
  for (int repeat = 0; repeat < 200; ++repeat) {
    for (const Bits bits : {Bits::kFloat, Bits::kInt8, Bits::kInt4}) {
      for (const Scale scale : {Scale::kNone, Scale::kRow, Scale::kColumn}) {
        if (bits == Bits::kFloat && scale != Scale::kNone) continue;
        const Case one(random, bits, scale);
        for (const Simd simd : every_simd()) {
          CAPTURE(repeat, bits, scale, simd, one.width, one.wide);
          check_rows(one, simd, random);
        }
      }
    }
  }
}

}  // namespace
}  // namespace afm::serve
