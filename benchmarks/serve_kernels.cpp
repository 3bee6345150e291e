// Times the kernels of the scorer alone: the layers of an MLP at several batches, for every instruction set and type of
// weights.
//
// build/libafm/serve/serve_kernels [INPUTS HIDDEN HIDDEN HIDDEN]

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string_view>
#include <vector>

#include "libafm/serve/kernels.h"

namespace {

using afm::Bits;
using afm::serve::Kernels;
using afm::serve::Matrix;
using afm::serve::Simd;

constexpr int64_t kBlock = afm::serve::kLinearRows;

struct Mlp {
  std::vector<Matrix> layers;
  std::vector<float> bias;
  int64_t weights = 0;
};

struct Buffer {
  explicit Buffer(int64_t floats) : memory(static_cast<std::size_t>(floats) + 16) {
    std::mt19937 generator(2);
    for (float& value : memory) value = std::normal_distribution<float>()(generator);
  }
  float* data() {
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    return memory.data() + (64 - address % 64) % 64 / sizeof(float);
  }
  std::vector<float> memory;
};

Mlp random_mlp(const std::vector<int64_t>& widths, Bits bits) {
  std::mt19937 generator(1);
  Mlp mlp;
  mlp.bias.assign(static_cast<std::size_t>(*std::ranges::max_element(widths)) + 16, 0.1F);
  const std::vector<float> scale(mlp.bias.size(), 0.001F);
  for (std::size_t l = 0; l + 1 < widths.size(); ++l) {
    const int64_t n = widths[l] * widths[l + 1];
    mlp.weights += n;
    std::vector<float> floats(static_cast<std::size_t>(n));
    std::vector<uint8_t> codes(static_cast<std::size_t>(n));
    for (float& value : floats) value = std::normal_distribution<float>(0, 0.05F)(generator);
    for (uint8_t& code : codes)
      code = static_cast<uint8_t>((generator() % 15 + 9) % 16 + 16 * ((generator() % 15 + 9) % 16));
    const void* elements = bits == Bits::kFloat ? static_cast<const void*>(floats.data()) : codes.data();
    mlp.layers.emplace_back(afm::serve::MatrixSource{.bits = bits,
                                                     .elements = elements,
                                                     .rows = widths[l + 1],
                                                     .columns = widths[l],
                                                     .row_scale = bits == Bits::kFloat ? nullptr : scale.data()});
  }
  return mlp;
}

void forward(const Kernels& kernels, const Mlp& mlp, const float* inputs, float* const (&activations)[2],
             int64_t stride, float* scratch, int64_t rows) {
  for (int64_t first = 0; first < rows; first += kBlock) {
    for (std::size_t l = 0; l < mlp.layers.size(); ++l) {
      kernels.linear(mlp.layers[l].packed(), {.x = l == 0 ? inputs : activations[l % 2],
                                              .x_stride = stride,
                                              .rows = std::min(kBlock, rows - first),
                                              .bias = mlp.bias.data(),
                                              .y = activations[1 - l % 2],
                                              .y_stride = stride,
                                              .relu = true,
                                              .scratch = scratch});
    }
  }
}

template <class Call>
double median_microseconds(const Call& call) {
  std::vector<double> times;
  const auto begin = std::chrono::steady_clock::now();
  while (times.size() < 11 || std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(150)) {
    const auto start = std::chrono::steady_clock::now();
    call();
    times.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
  }
  std::ranges::nth_element(times, times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2));
  return times[times.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<int64_t> widths = {624, 400, 400, 400};
  if (argc > 1) widths.clear();
  for (int i = 1; i < argc; ++i) widths.push_back(std::atoll(argv[i]));
  widths.push_back(1);
  const int64_t stride = afm::serve::padded_stride(*std::ranges::max_element(widths));
  Buffer inputs(kBlock * stride), first(kBlock * stride), second(kBlock * stride), scratch(32 * (stride + 1));
  std::printf("%-9s %-6s %7s %12s %10s\n", "simd", "bits", "batch", "microseconds", "GFLOP/s");
  for (const Simd simd : {Simd::kPortable, Simd::kAvx2, Simd::kAvx512}) {
    if (simd > afm::serve::best_simd()) continue;
    for (const Bits bits : {Bits::kFloat, Bits::kInt8, Bits::kInt4}) {
      const Mlp mlp = random_mlp(widths, bits);
      for (const int64_t rows : {1, 2, 4, 8, 32, 128, 1024}) {
        const double time = median_microseconds([&] {
          forward(afm::serve::kernels(simd), mlp, inputs.data(), {first.data(), second.data()}, stride, scratch.data(),
                  rows);
        });
        const double flops = 2.0 * static_cast<double>(mlp.weights * rows);
        std::printf("%-9s %-6s %7lld %12.1f %10.1f\n",
                    enum_names(std::type_identity<Simd>())[static_cast<int>(simd)].data(),
                    enum_names(std::type_identity<Bits>())[static_cast<int>(bits)].data(), static_cast<long long>(rows),
                    time, flops / time / 1e3);
      }
    }
  }
}
