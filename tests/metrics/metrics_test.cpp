#include "libafm/metrics/metrics.h"

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include "libafm/core/error.h"
#include "libafm/core/tensors.h"

using afm::auc;
using afm::logloss;
using Catch::Matchers::Message;
using Catch::Matchers::WithinAbs;

namespace {

// What issue and header promise against scikit-learn; sums of some thousand float64 terms stay far below.
constexpr double kTolerance = 1e-9;

at::Tensor floats(std::vector<double> values) { return torch::tensor(values, torch::kFloat64).to(torch::kFloat32); }

// Counts pairs one by one; `tie` is the worth of a pair of equal logits.
double auc_by_pairs(const at::Tensor& logits, const at::Tensor& labels, double tie) {
  const auto s = logits.accessor<float, 1>();
  const auto t = labels.accessor<float, 1>();
  double won = 0, pairs = 0;
  for (int64_t i = 0; i < s.size(0); ++i) {
    for (int64_t j = 0; j < s.size(0); ++j) {
      if (t[i] != 1 || t[j] != 0) continue;
      ++pairs;
      won += s[i] > s[j] ? 1.0 : (s[i] == s[j] ? tie : 0.0);
    }
  }
  return won / pairs;
}

}  // namespace

TEST_CASE("AUC and logloss equal scikit-learn's") {
  const auto file = afm::SafetensorsFile::open(std::string(AFM_GOLDEN) + "/metrics.safetensors");
  int cases = 0;
  for (; file.tensors().contains("case" + std::to_string(cases) + ".logits"); ++cases) {
    const auto tensor = [&](const std::string& name) {
      return afm::view_tensor(file, "case" + std::to_string(cases) + "." + name);
    };
    CHECK_THAT(auc(tensor("logits"), tensor("labels")), WithinAbs(tensor("auc").item<double>(), kTolerance));
    CHECK_THAT(logloss(tensor("logits"), tensor("labels")), WithinAbs(tensor("logloss").item<double>(), kTolerance));
  }
  CHECK(cases == 5);
}

TEST_CASE("AUC equals the count of pairs, ties averaged") {
  torch::manual_seed(1);
  for (int round = 0; round < 20; ++round) {
    const int64_t rows = 20 + 7 * round, levels = 1 + round;
    const auto logits = torch::randint(levels, {rows}).to(torch::kFloat32) - 2;
    const auto labels = (torch::rand({rows}) < 0.3).to(torch::kFloat32);
    labels[0] = 0;
    labels[1] = 1;
    CAPTURE(rows, levels);
    CHECK_THAT(auc(logits, labels), WithinAbs(auc_by_pairs(logits, labels, 0.5), kTolerance));
    if (levels < 5) CHECK(std::abs(auc(logits, labels) - auc_by_pairs(logits, labels, 0.0)) > 1e-3);
  }
}

TEST_CASE("AUC is invariant under monotone maps, mirrored by a sign, and one half on a constant") {
  torch::manual_seed(2);
  const auto logits = torch::randn({500}), labels = (torch::rand({500}) < torch::sigmoid(logits)).to(torch::kFloat32);
  const double value = auc(logits, labels);
  CHECK(value > 0.6);
  CHECK(auc(3 * logits + 1, labels) == value);
  CHECK(auc(logits.to(torch::kFloat64).exp(), labels) == value);
  CHECK_THAT(auc(-logits, labels), WithinAbs(1 - value, kTolerance));
  CHECK_THAT(auc(logits, 1 - labels), WithinAbs(1 - value, kTolerance));
  CHECK(auc(torch::full({500}, 3.0), labels) == 0.5);
  CHECK(auc(floats({-0.0, 0.0}), floats({1, 0})) == 0.5);
}

TEST_CASE("AUC on logits sees what saturated probabilities hide") {
  const auto logits = floats({30, 31, 32, 33}), labels = floats({0, 0, 1, 1});
  CHECK(auc(logits, labels) == 1.0);
  CHECK(auc(torch::sigmoid(logits), labels) == 0.5);
}

TEST_CASE("logloss stays exact where a probability would be 0 or 1") {
  CHECK_THAT(logloss(floats({-200, 300}), floats({1, 0})), WithinAbs(250.0, kTolerance));
  CHECK_THAT(logloss(floats({25}), floats({1})), WithinAbs(std::log1p(std::exp(-25.0)), 1e-25));
  CHECK_THAT(logloss(floats({0, 0}), floats({1, 1})), WithinAbs(std::log(2.0), kTolerance));
}

TEST_CASE("labels of any number type and logits in half precision are taken") {
  const auto logits = floats({-1, 0, 1, 2}), labels = floats({0, 1, 0, 1});
  CHECK(auc(logits, labels.to(torch::kInt64)) == auc(logits, labels));
  CHECK(auc(logits.to(torch::kBFloat16), labels.to(torch::kBool)) == auc(logits, labels));
}

TEST_CASE("metrics refuse what has no answer") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  CHECK_THROWS_MATCHES(auc(floats({0, 1, nan}), floats({0, 1, 1})), afm::DataError,
                       Message("the logit of row 2 must be finite, got nan"));
  CHECK_THROWS_MATCHES(logloss(floats({0, -inf}), floats({0, 1})), afm::DataError,
                       Message("the logit of row 1 must be finite, got -inf"));
  CHECK_THROWS_MATCHES(logloss(floats({0, 1}), floats({0.5, 1})), afm::DataError,
                       Message("the label of row 0 must be 0 or 1, got 0.5"));
  CHECK_THROWS_MATCHES(auc(floats({0, 1}), floats({1, 1})), afm::DataError,
                       Message("AUC needs labels of both classes, got 2 rows of label 1 only"));
  CHECK_THROWS_MATCHES(auc(floats({0, 1}), floats({0, 0})), afm::DataError,
                       Message("AUC needs labels of both classes, got 2 rows of label 0 only"));
  CHECK_THROWS_MATCHES(logloss(floats({}), floats({})), afm::DataError,
                       Message("metrics need at least one row, got none"));
  CHECK_THROWS_MATCHES(auc(floats({0, 1}), floats({0})), std::invalid_argument,
                       Message("logits and labels must be vectors of one length, got [2] and [1]"));
}
