#include "libafm/compress/plan_allocate.h"

#include <cmath>
#include <random>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

namespace afm::testing {
namespace {

constexpr std::size_t kStates = 4000;
constexpr double kRounding = 1e-12;  // of sums of some hundred losses of size 1

// Losses that fall with the cost, not convex.
std::vector<Group> random_groups(int seed, std::size_t groups, std::size_t points) {
  std::mt19937 random(static_cast<unsigned>(seed));
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<Group> made(groups);
  for (Group& group : made) {
    const double scale = std::pow(10.0, -2.0 * uniform(random));
    Point point = {std::floor(20.0 * uniform(random)), scale};
    for (std::size_t p = 0; p < points; ++p) {
      group.push_back(point);
      point.cost += 1.0 + std::floor(30.0 * uniform(random));
      point.loss *= uniform(random);
    }
  }
  return made;
}

double extreme_cost(const std::vector<Group>& groups, bool largest) {
  double cost = 0.0;
  for (const Group& group : groups) cost += largest ? group.back().cost : group.front().cost;
  return cost;
}

// Least loss within the budget, trying everything.
double brute_force(const std::vector<Group>& groups, double budget, std::size_t from = 0) {
  if (budget < 0.0) return INFINITY;
  if (from == groups.size()) return 0.0;
  double best = INFINITY;
  for (const Point& point : groups[from]) {
    best = std::min(best, point.loss + brute_force(groups, budget - point.cost, from + 1));
  }
  return best;
}

// The most that one step along the hull of a group saves.
double largest_step(const std::vector<Group>& groups) {
  double largest = 0.0;
  for (const Group& group : groups) {
    const auto hull = lower_hull(group);
    for (std::size_t i = 1; i < hull.size(); ++i) {
      largest = std::max(largest, group[hull[i - 1]].loss - group[hull[i]].loss);
    }
  }
  return largest;
}

double loss_of(const std::vector<Group>& groups, const Allocation& allocation) {
  double loss = 0.0;
  for (std::size_t g = 0; g < groups.size(); ++g) loss += groups[g][allocation.choice[g]].loss;
  return loss;
}

double cost_of(const std::vector<Group>& groups, const Allocation& allocation) {
  double cost = 0.0;
  for (std::size_t g = 0; g < groups.size(); ++g) cost += groups[g][allocation.choice[g]].cost;
  return cost;
}

TEST_CASE("the lower hull has the points that no mixture of others beats") {
  const Group group = {{5.0, 3.0}, {0.0, 10.0}, {2.0, 9.0}, {3.0, 4.0}, {4.0, 4.0}, {8.0, 3.0}, {9.0, 1.0}};
  CHECK(lower_hull(group) == std::vector<std::size_t>{1, 3, 0, 6});
  CHECK(lower_hull({{1.0, 2.0}, {1.0, 1.0}}) == std::vector<std::size_t>{1});
}

TEST_CASE("a refined allocation is the best there is, the greedy one within a step of the bound") {
  const auto seed = GENERATE(range(0, 60));
  const auto groups = random_groups(seed, 5, 5);
  const double smallest = extreme_cost(groups, false), largest = extreme_cost(groups, true);
  int worse = 0;
  for (double share = 0.0; share <= 1.05; share += 0.15) {
    const double budget = smallest + share * (largest - smallest);
    const auto greedy = allocate(groups, budget);
    REQUIRE(greedy);
    const auto best = refine(groups, budget, *greedy, kStates);
    const double truth = brute_force(groups, budget);
    CHECK(std::abs(best.loss - truth) <= kRounding);
    CHECK(loss_of(groups, best) == best.loss);
    CHECK(cost_of(groups, best) == best.cost);
    CHECK(best.cost <= budget);
    CHECK(greedy->bound <= truth + kRounding);
    CHECK(greedy->loss - greedy->bound <= largest_step(groups) + kRounding);
    worse += greedy->loss > truth + kRounding;
  }
  static int worse_in_all = 0;
  worse_in_all += worse;
  if (seed == 59) CHECK(worse_in_all > 0);  // else there was nothing to refine
}

TEST_CASE("on many groups the loss falls with the budget and stays within a step of the bound") {
  const auto seed = GENERATE(range(0, 5));
  const auto groups = random_groups(seed, 60, 40);
  const double smallest = extreme_cost(groups, false), largest = extreme_cost(groups, true);
  double before = INFINITY;
  for (double share = 0.01; share < 1.0; share *= 1.7) {
    const double budget = smallest + share * (largest - smallest);
    const auto greedy = allocate(groups, budget);
    REQUIRE(greedy);
    const auto best = refine(groups, budget, *greedy, kStates);
    CHECK(best.cost <= budget);
    CHECK(best.loss <= greedy->loss);
    CHECK(greedy->loss - greedy->bound <= largest_step(groups));
    CHECK(best.loss < before);
    before = best.loss;
  }
}

TEST_CASE("with cost and loss swapped the allocation is the cheapest within a loss") {
  const auto seed = GENERATE(range(0, 20));
  auto groups = random_groups(seed, 4, 4);
  double least = 0.0, most = 0.0;
  for (Group& group : groups) {
    for (Point& point : group) std::swap(point.cost, point.loss);
    most += group.front().cost;
    least += group.back().cost;
  }
  const double budget = least + 0.3 * (most - least);
  const auto greedy = allocate(groups, budget);
  REQUIRE(greedy);
  const auto best = refine(groups, budget, *greedy, kStates);
  CHECK(std::abs(best.loss - brute_force(groups, budget)) <= kRounding);
  CHECK(best.cost <= budget);
}

TEST_CASE("a budget below the cheapest points is none, an ample one gives the least loss") {
  const std::vector<Group> groups = {{{2.0, 1.0}, {3.0, 0.5}}, {{1.0, 1.0}, {7.0, 0.0}}};
  CHECK_FALSE(allocate(groups, 2.9));
  CHECK(cheapest(groups).choice == std::vector<std::size_t>{0, 0});
  CHECK(cheapest(groups).cost == 3.0);
  CHECK(allocate(groups, 3.0)->choice == std::vector<std::size_t>{0, 0});
  const auto ample = allocate(groups, 100.0);
  CHECK(ample->choice == std::vector<std::size_t>{1, 1});
  CHECK(ample->price == 0.0);
  CHECK(ample->bound == ample->loss);
  CHECK(allocate({}, 0.0)->choice.empty());
}

}  // namespace
}  // namespace afm::testing
