#pragma once

// Layers and inputs that numerics break on: of each kind a random one, in float32 and float64, on the CPU and where
// there is one on a GPU.

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <torch/cuda.h>
#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "tests/linalg/random_layers.h"

namespace afm::testing {

// y = W x + b, float64: weight [m, n], bias [m], inputs [B, n].
struct HostileLayer {
  at::Tensor weight, bias, inputs;
};

struct HostileCase {
  std::string name;
  std::function<HostileLayer(int64_t m, int64_t n)> make;
};

// Values from 1 down to 1 / condition along random directions.
inline at::Tensor conditioned(int64_t rows, int64_t columns, double condition) {
  const int64_t rank = std::min(rows, columns);
  const at::Tensor values = torch::logspace(0, -std::log10(condition), rank, 10.0, torch::kDouble);
  const at::Tensor left = std::get<0>(at::linalg_qr(randn({rows, rank})));
  const at::Tensor right = std::get<0>(at::linalg_qr(randn({columns, rank})));
  return at::mm(left * values, right.t());
}

inline const std::vector<HostileCase>& hostile_cases() {
  constexpr int64_t kRows = 150;
  const auto plain = [](int64_t m, int64_t n) {
    return HostileLayer{randn({m, n}), randn({m}), correlated_rows(kRows, n)};
  };
  const auto changed = [plain](auto change) {
    return [=](int64_t m, int64_t n) {
      HostileLayer layer = plain(m, n);
      change(layer);
      return layer;
    };
  };
  const auto scaled = [changed](double weight, double bias) {
    return changed([=](HostileLayer& it) {
      it.weight.mul_(weight);
      it.bias.mul_(bias);
    });
  };
  static const std::vector<HostileCase> cases = {
      {"weights of rank one",
       [](int64_t m, int64_t n) {
         return HostileLayer{at::outer(randn({m}), randn({n})), randn({m}), correlated_rows(kRows, n)};
       }},
      {"repeated eigenvalues",
       [](int64_t m, int64_t n) {
         const at::Tensor data = randn({kRows, n}), white = std::get<0>(at::linalg_qr(data - data.mean(0)));
         return HostileLayer{torch::eye(m, n, torch::kDouble), randn({m}), white * std::sqrt(kRows)};
       }},
      {"condition 1e12",
       [](int64_t m, int64_t n) {
         return HostileLayer{conditioned(m, n, 1e12), randn({m}), randn({kRows, n})};
       }},
      {"inputs of condition 1e12",
       [](int64_t m, int64_t n) {
         return HostileLayer{randn({m, n}), randn({m}), conditioned(kRows, n, 1e12)};
       }},
      {"output means 1e4 times the spread", changed([](HostileLayer& it) { it.bias.mul_(1e5); })},
      {"input means 1e4 times the spread",
       changed([](HostileLayer& it) { it.inputs.add_(1e4 * randn({it.inputs.size(1)})); })},
      {"constant inputs", changed([](HostileLayer& it) { it.inputs.copy_(it.inputs[0].expand_as(it.inputs)); })},
      {"zero weights", scaled(0, 1)},
      {"zeros", scaled(0, 0)},
      {"dead units", changed([](HostileLayer& it) {
         it.weight.narrow(0, 0, (it.weight.size(0) + 1) / 2).zero_();
         it.inputs.narrow(1, 0, it.inputs.size(1) / 2).zero_();
       })},
      {"one row", changed([](HostileLayer& it) { it.inputs = it.inputs.narrow(0, 0, 1); })},
      {"fewer rows than columns", changed([](HostileLayer& it) { it.inputs = it.inputs.narrow(0, 0, 3); })},
      {"the same two rows", changed([](HostileLayer& it) {
         it.inputs = it.inputs.narrow(0, 0, 2).repeat({40, 1});
       })},
      {"one row far from the others", changed([](HostileLayer& it) { it.inputs[0].mul_(1e6); })},
      {"columns of scales 1e-12 to 1", changed([](HostileLayer& it) {
         it.inputs.mul_(torch::logspace(-12, 0, it.inputs.size(1), 10.0, torch::kDouble));
       })},
      {"denormal weights", scaled(1e-39, 1e-39)},
      {"values of 1e-22", scaled(1e-22, 1e-22)},
      {"values of 1e30", scaled(1e30, 1e30)},
  };
  return cases;
}

// Widths on both sides of those from which products are taken in another way (128 columns).
inline HostileLayer hostile_layer(const HostileCase& it) {
  const auto [m, n] = GENERATE(table<int64_t, int64_t>({{1, 1}, {7, 5}, {5, 12}, {24, 24}, {140, 30}}));
  torch::manual_seed(11);
  return it.make(m, n);
}

// On a GPU too where there is one.
inline at::TensorOptions hostile_options() {
  const auto dtype = GENERATE(torch::kDouble, torch::kFloat);
  std::vector<at::DeviceType> devices = {torch::kCPU};
  if (torch::cuda::is_available()) devices.push_back(torch::kCUDA);
  return torch::dtype(dtype).device(GENERATE_COPY(from_range(devices)));
}

}  // namespace afm::testing
