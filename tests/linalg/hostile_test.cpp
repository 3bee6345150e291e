// What must hold on hostile layers as on others: every factor is finite, and the error is the predicted one but for
// the rounding of the type that the factors are stored in.

#include <cmath>
#include <limits>

#include <catch2/catch_test_macros.hpp>

#include "libafm/linalg/output_metric.h"
#include "tests/linalg/hostile_layers.h"

namespace afm::testing {
namespace {

bool all_finite(const Factors& factors) {
  const auto finite = [](const at::Tensor& tensor) { return tensor.isfinite().all().item<bool>(); };
  return finite(factors.down) && finite(factors.down_bias) && finite(factors.up) && finite(factors.up_bias);
}

Factors in_double(const Factors& factors) {
  const auto moved = [](const at::Tensor& tensor) { return tensor.to(at::kCPU, at::kDouble); };
  return {moved(factors.down), moved(factors.down_bias), moved(factors.up), moved(factors.up_bias)};
}

// A hostile layer as a model has it, and the same numbers in float64 on the CPU.
struct Case {
  at::Tensor weight, bias, inputs;
  HostileLayer exact;
  Moments moments;
  double eps, step;  // of the type: relative rounding, and the steps of denormal numbers

  Case(const HostileLayer& layer, at::TensorOptions options)
      : weight(layer.weight.to(options)), bias(layer.bias.to(options)), inputs(layer.inputs.to(options)) {
    const auto in_float64 = [](const at::Tensor& tensor) { return tensor.to(at::kCPU, at::kDouble); };
    exact = {in_float64(weight), in_float64(bias), in_float64(inputs)};
    const bool is_double = weight.scalar_type() == at::kDouble;
    eps = is_double ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
    step = is_double ? 1e-323 : 1.5e-45;
    moments.add(at::linear(inputs, weight, bias));
  }

  // What one rounding of each operand may move the outputs of a row by: every product is at most the norm of a row
  // times that of the weights.
  double rounding() const {
    const double row = exact.inputs.norm(2, {1}).max().item<double>();
    const double magnitude = exact.weight.norm().item<double>() * row + exact.bias.norm().item<double>();
    return 20 * (eps * magnitude + step * (1 + row));
  }

  // Root mean squared distance of the factors' outputs from the layer's own, in float64.
  double error(const Factors& factors, const OutputMetric& metric = {}) const {
    at::Tensor off = apply(in_double(factors), exact.inputs) - at::mm(exact.inputs, exact.weight.t()) - exact.bias;
    if (!metric.is_plain()) off = at::mm(off, metric.root);
    return off.norm().item<double>() / std::sqrt(static_cast<double>(off.size(0)));
  }
};

std::vector<int64_t> ranks_of(int64_t m) { return {0, std::min<int64_t>(1, m), m / 3, m / 2, m}; }

// Squares as Theorem 1 has them. The spectrum is off by a share of its sum: by what its solver rounds, and where wide
// float32 rows are multiplied as such (moments.h) by what these round.
bool is_predicted(const Case& it, const Factors& factors, const Spectrum& spectrum, int64_t k) {
  const bool float_products = it.weight.scalar_type() == at::kFloat && it.weight.size(0) >= 128;
  const double discarded = spectrum.discarded(k), error = it.error(factors), rounding = it.rounding();
  const double share = float_products ? 1.2e-7 * static_cast<double>(it.inputs.size(0)) : 1e-13;
  const double allowed = 1e-9 * discarded + share * spectrum.total() + rounding * (rounding + 2 * std::sqrt(discarded));
  return std::abs(error * error - discarded) <= allowed;
}

}  // namespace

TEST_CASE("factors of hostile layers are finite and lose what was predicted", "[cuda]") {
  const auto& hostile = GENERATE(from_range(hostile_cases()));
  const auto options = hostile_options();
  const HostileLayer layer = hostile_layer(hostile);
  INFO(hostile.name << ", weights " << layer.weight.sizes() << ", " << options);
  const Case it(layer, options);
  const Spectrum spectrum = spectrum_of(it.moments.covariance());
  REQUIRE(spectrum.values.isfinite().all().item<bool>());
  for (const int64_t k : ranks_of(layer.weight.size(0))) {
    const Factors factors = mimic_output(it.weight, it.bias, it.moments.mean(), spectrum, k);
    REQUIRE(all_finite(factors));
    INFO("rank " << k << ", error " << it.error(factors) << ", predicted " << std::sqrt(spectrum.discarded(k))
                 << ", rounding " << it.rounding());
    CHECK(is_predicted(it, factors, spectrum, k));
  }
}

TEST_CASE("in hostile metrics factors are finite and lose what was predicted", "[cuda]") {
  const auto& hostile = GENERATE(from_range(hostile_cases()));
  const auto options = hostile_options();
  const int64_t m = 9;
  torch::manual_seed(12);
  const Case it(hostile.make(m, 7), options);
  const at::Tensor u = randn({m, 1});
  const std::vector<at::Tensor> metrics = {at::mm(u, u.t()), torch::zeros({m, m}, torch::kDouble),
                                           1e-40 * at::mm(u, u.t()), 1e30 * at::mm(u, u.t()),
                                           at::mm(conditioned(m, m, 1e6), conditioned(m, m, 1e6).t())};
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    const OutputMetric metric = output_metric(metrics[i]);
    const Spectrum spectrum = spectrum_in(metric, it.moments.covariance());
    for (const int64_t k : ranks_of(m)) {
      const Factors factors = mimic_output(it.weight, it.bias, it.moments.mean(), spectrum, k, metric);
      REQUIRE(all_finite(factors));
      const double error = it.error(factors, metric), predicted = std::sqrt(spectrum.discarded(k));
      const double root = metric.root.norm().item<double>(), inverse = metric.inverse.norm().item<double>();
      const double rounding = it.rounding() * root * root * inverse + 1e-6 * std::sqrt(spectrum.total());
      INFO(hostile.name << ", metric " << i << ", rank " << k << ", error " << error << ", predicted " << predicted
                        << ", rounding " << rounding);
      CHECK(std::abs(error - predicted) <= 1e-6 * predicted + rounding);
    }
  }
}

TEST_CASE("hostile tables and counts of ids give finite factors that lose what was predicted", "[cuda]") {
  const auto& hostile = GENERATE(from_range(hostile_cases()));
  const auto options = hostile_options();
  torch::manual_seed(13);
  const HostileLayer layer = hostile.make(1, 6);
  const at::Tensor rows = (layer.inputs * layer.weight).to(options);  // of the scale of either
  at::Tensor one = torch::zeros({rows.size(0)}, torch::kDouble);
  one[rows.size(0) / 2] = 3;
  const std::vector<at::Tensor> counts = {torch::ones_like(one), one, 1e15 * torch::ones_like(one),
                                          torch::zeros_like(one), torch::arange(rows.size(0)).to(torch::kDouble)};
  for (const at::Tensor& count : counts) {
    Moments moments(rows.size(1), rows.device());
    moments.add_weighted(rows, count);
    const Spectrum spectrum = spectrum_of(moments.covariance());
    const at::Tensor exact = rows.to(at::kCPU, at::kDouble);
    const double size = exact.norm(2, {1}).max().item<double>();
    const double rounding = 20 * (rows.scalar_type() == at::kDouble ? 2.3e-16 * size : 1.2e-7 * size + 1e-44);
    for (int64_t k = 0; k <= 6; ++k) {
      const TableFactors factors = mimic_table(rows, moments.mean(), spectrum, k);
      const at::Tensor back =
          at::mm(factors.latent.to(at::kCPU, at::kDouble), factors.basis.to(at::kCPU, at::kDouble)) +
          factors.offset.to(at::kCPU, at::kDouble);
      REQUIRE(back.isfinite().all().item<bool>());
      if (moments.count() == 0) continue;
      const double error = ((back - exact).square().sum(1) * count).sum().item<double>() / moments.count();
      const double discarded = spectrum.discarded(k);
      INFO(hostile.name << ", " << options << ", rank " << k << ", error " << error << ", predicted " << discarded);
      CHECK(std::abs(error - discarded) <=
            1e-9 * discarded + 1e-13 * spectrum.total() + rounding * (rounding + 2 * std::sqrt(discarded)));
    }
  }
}

TEST_CASE("the SVD of hostile weights is finite and loses the singular values that it cuts off", "[cuda]") {
  const auto& hostile = GENERATE(from_range(hostile_cases()));
  const auto options = hostile_options();
  const HostileLayer layer = hostile_layer(hostile);
  const Case it(layer, options);
  const at::Tensor &weight = it.exact.weight, values = at::linalg_svdvals(weight);
  for (const int64_t k : {int64_t{0}, int64_t{1}, values.size(0)}) {
    const Factors factors = truncate_weight(it.weight, it.bias, it.inputs.to(at::kDouble).mean(0), k);
    REQUIRE(all_finite(factors));
    const Factors exact = in_double(factors);
    const double lost = (at::mm(exact.up, exact.down) - weight).norm().item<double>();
    const double cut_off = values.narrow(0, k, values.size(0) - k).norm().item<double>();
    INFO(hostile.name << ", " << options << ", rank " << k << ", lost " << lost << ", cut off " << cut_off);
    CHECK(std::abs(lost - cut_off) <= 1e-9 * cut_off + 100 * (it.eps * weight.norm().item<double>() + 1e-44));
  }
}

TEST_CASE("control: factors of hostile layers that are 1 % too large lose more than was predicted") {
  const HostileLayer layer = hostile_cases().front().make(24, 24);
  const Case it(layer, torch::dtype(torch::kFloat));
  const Spectrum spectrum = spectrum_of(it.moments.covariance());
  Factors factors = mimic_output(it.weight, it.bias, it.moments.mean(), spectrum, 3);
  factors.up.mul_(1.01);
  CHECK_FALSE(is_predicted(it, factors, spectrum, 3));
}

}  // namespace afm::testing
