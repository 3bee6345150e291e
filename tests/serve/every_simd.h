#pragma once

// What the tests of the kernels have in common: random shapes, and each instruction set of this processor.

#include <cstdint>
#include <random>
#include <vector>

#include "libafm/serve/kernels.h"

namespace afm::serve {

inline std::vector<Simd> every_simd() {
  std::vector<Simd> found;
  for (const Simd simd : {Simd::kPortable, Simd::kAvx2, Simd::kAvx512}) {
    if (simd <= best_simd()) found.push_back(simd);
  }
  return found;
}

class Random {
 public:
  explicit Random(uint32_t seed) : generator_(seed) {}
  int64_t between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(generator_); }
  bool flip() { return between(0, 1) == 1; }
  float normal() { return std::normal_distribution<float>()(generator_); }
  std::vector<float> normals(int64_t count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = normal();
    return values;
  }

 private:
  std::mt19937 generator_;
};

// Integers of a table or matrix, with the bytes that a file holds.
struct Codes {
  Codes(Random& random, Bits bits, int64_t count) {
    const int64_t largest = bits == Bits::kInt8 ? 127 : 7;
    bytes.assign(static_cast<std::size_t>(bits == Bits::kInt8 ? count : (count + 1) / 2), 0);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t code = random.between(-largest, largest);
      values.push_back(static_cast<float>(code));
      if (bits == Bits::kInt8) {
        bytes[static_cast<std::size_t>(i)] = static_cast<uint8_t>(code);
      } else {
        bytes[static_cast<std::size_t>(i / 2)] |= static_cast<uint8_t>((code & 15) << (i % 2 == 0 ? 0 : 4));
      }
    }
  }
  std::vector<uint8_t> bytes;
  std::vector<float> values;
};

}  // namespace afm::serve
