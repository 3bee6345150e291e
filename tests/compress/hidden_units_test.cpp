#include "libafm/compress/hidden_units.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "tests/core/temporary_folder.h"
#include "tests/linalg/random_layers.h"

namespace afm::testing {
namespace {

struct Hidden {
  at::Tensor rows;    // [B, H] of h, after a ReLU
  at::Tensor weight;  // [m, H]
  at::Tensor bias;    // [m]
  Moments moments;

  double error(const std::vector<int64_t>& kept, const at::Tensor& root) const {
    const NextLayer next = refit_next_layer(moments, weight, bias, kept);
    const at::Tensor wanted = at::mm(rows, weight.t()) + bias;
    const at::Tensor got = at::mm(rows.index_select(1, torch::tensor(kept)), next.weight.t()) + next.bias;
    return squared_error(at::mm(got, root), at::mm(wanted, root));
  }
};

Hidden random_hidden(int64_t units, int64_t outputs) {
  const at::Tensor rows = correlated_rows(200, units, 1.0).relu();
  return {rows, randn({outputs, units}), randn({outputs}), moments_of(rows)};
}

std::vector<int64_t> first(const HiddenUnits& units, int64_t count) {
  return {units.order.begin(), units.order.begin() + count};
}

TEST_CASE("the error after every count of units is that on the calibration rows") {
  torch::manual_seed(GENERATE(range(0, 8)));
  const int64_t units = random_size(1, 20), outputs = random_size(1, 10);
  const Hidden hidden = random_hidden(units, outputs);
  const bool measured = GENERATE(false, true);
  const at::Tensor root = randn({outputs, outputs});
  const OutputMetric metric = measured ? output_metric(at::mm(root, root.t())) : OutputMetric();
  const HiddenUnits chosen = select_units(hidden.moments, hidden.weight, metric);
  REQUIRE(chosen.error.size() == static_cast<std::size_t>(units) + 1);
  std::vector<int64_t> sorted = chosen.order;
  std::ranges::sort(sorted);
  std::vector<int64_t> all(static_cast<std::size_t>(units));
  std::iota(all.begin(), all.end(), int64_t{0});
  CHECK(sorted == all);
  const at::Tensor unit = measured ? metric.root : torch::eye(outputs, torch::kDouble);
  for (int64_t count = 1; count <= units; ++count) {
    const double predicted = chosen.error[static_cast<std::size_t>(count)];
    CHECK(std::abs(hidden.error(first(chosen, count), unit) - predicted) <= 1e-9 * chosen.error[0]);
    CHECK(predicted <= chosen.error[static_cast<std::size_t>(count) - 1]);
  }
  CHECK(chosen.error.back() < 1e-9 * chosen.error[0]);
  for (int64_t most = 0; most <= units; ++most) {
    const HiddenUnits few = select_units(hidden.moments, hidden.weight, metric, most);
    CHECK(few.order == first(chosen, most));
    CHECK(few.error == std::vector<double>(chosen.error.begin(), chosen.error.begin() + most + 1));
  }
}

TEST_CASE("each unit is the one that takes most off the error") {
  torch::manual_seed(GENERATE(range(0, 4)));
  const Hidden hidden = random_hidden(9, 5);
  const HiddenUnits chosen = select_units(hidden.moments, hidden.weight);
  const at::Tensor unit = torch::eye(5, torch::kDouble);
  for (int64_t count = 1; count <= 4; ++count) {
    const double best = hidden.error(first(chosen, count), unit);
    for (int64_t other = 0; other < 9; ++other) {
      std::vector<int64_t> kept = first(chosen, count - 1);
      if (std::ranges::find(kept, other) != kept.end()) continue;
      kept.push_back(other);
      CHECK(best <= hidden.error(kept, unit) * (1.0 + 1e-9) + 1e-9);
    }
  }
}

TEST_CASE("units that repeat others or never vary come last and cost nothing") {
  torch::manual_seed(3);
  const at::Tensor own = correlated_rows(150, 6, 1.0).relu();
  const at::Tensor rows = torch::cat({own, own.narrow(1, 0, 3) * 2.0, torch::ones({150, 2}, torch::kDouble)}, 1);
  const Hidden hidden{rows, randn({4, 11}), randn({4}), moments_of(rows)};
  const HiddenUnits chosen = select_units(hidden.moments, hidden.weight);
  CHECK(chosen.error[6] < 1e-12 * chosen.error[0]);
  CHECK(chosen.error[5] > 1e-6 * chosen.error[0]);
  CHECK(hidden.error(first(chosen, 6), torch::eye(4, torch::kDouble)) < 1e-9 * chosen.error[0]);
  CHECK(hidden.error(chosen.order, torch::eye(4, torch::kDouble)) < 1e-9 * chosen.error[0]);
}

TEST_CASE("control: to drop units without a refit of the next layer loses more") {
  torch::manual_seed(4);
  const Hidden hidden = random_hidden(12, 6);
  const HiddenUnits chosen = select_units(hidden.moments, hidden.weight);
  const std::vector<int64_t> kept = first(chosen, 6);
  const at::Tensor index = torch::tensor(kept);
  const at::Tensor dropped = at::mm(hidden.rows.index_select(1, index), hidden.weight.index_select(1, index).t());
  const at::Tensor missing = at::mm(hidden.rows, hidden.weight.t()) - dropped;
  const double best_bias = squared_error(missing, missing.mean(0).expand_as(missing));
  CHECK(chosen.error[6] < 0.9 * best_bias);
}

TEST_CASE("select_units and refit_next_layer refuse what does not fit") {
  torch::manual_seed(5);
  const Hidden hidden = random_hidden(4, 3);
  CHECK(message_of<std::invalid_argument>([&] {
          select_units(hidden.moments, randn({3, 5}));
        }) == "select_units: next_weight must have one column for each of the 4 hidden units");
  CHECK(message_of<std::invalid_argument>([&] {
          select_units(hidden.moments, hidden.weight, output_metric(torch::eye(2)));
        }) == "select_units: metric must be of the 3 outputs, got 2");
  for (const std::vector<int64_t>& kept : {std::vector<int64_t>{}, {0, 0}, {4}, {-1}}) {
    CHECK(message_of<std::invalid_argument>([&] { refit_next_layer(hidden.moments, hidden.weight, {}, kept); }) ==
          "the kept units must be different ones in [0, 4)");
  }
}

}  // namespace
}  // namespace afm::testing
