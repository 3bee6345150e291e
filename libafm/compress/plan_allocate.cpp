#include "libafm/compress/plan_allocate.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace afm {
namespace {

// From one hull point of a group to the next.
struct HullStep {
  std::size_t group = 0, target = 0;
  double cost = 0.0, saved = 0.0;
  double rate() const { return saved / cost; }
};

std::vector<HullStep> steps_of(const std::vector<std::vector<std::size_t>>& hulls, const std::vector<Group>& groups) {
  std::vector<HullStep> steps;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    for (std::size_t i = 1; i < hulls[g].size(); ++i) {
      const Point& from = groups[g][hulls[g][i - 1]];
      const Point& to = groups[g][hulls[g][i]];
      steps.push_back({g, hulls[g][i], to.cost - from.cost, from.loss - to.loss});
    }
  }
  // Rates never rise along a hull, so the steps of a group stay in order.
  std::ranges::stable_sort(steps, std::greater<>(), &HullStep::rate);
  return steps;
}

void add_up(const std::vector<Group>& groups, Allocation& allocation) {
  allocation.cost = allocation.loss = 0.0;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    allocation.cost += groups[g][allocation.choice[g]].cost;
    allocation.loss += groups[g][allocation.choice[g]].loss;
  }
}

void spend_rest(const std::vector<Group>& groups, double budget, Allocation& allocation) {
  for (;;) {
    double best_rate = 0.0;
    std::size_t group = 0, target = 0;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const Point& now = groups[g][allocation.choice[g]];
      for (std::size_t p = 0; p < groups[g].size(); ++p) {
        const double more = groups[g][p].cost - now.cost, saved = now.loss - groups[g][p].loss;
        if (saved <= 0.0 || allocation.cost + more > budget) continue;
        const double rate = more > 0.0 ? saved / more : std::numeric_limits<double>::infinity();
        if (rate <= best_rate) continue;
        best_rate = rate;
        group = g;
        target = p;
      }
    }
    if (best_rate == 0.0) return;
    allocation.choice[group] = target;
    add_up(groups, allocation);
  }
}

}  // namespace

std::vector<std::size_t> lower_hull(const Group& group) {
  std::vector<std::size_t> order(group.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
    return group[a].cost != group[b].cost ? group[a].cost < group[b].cost : group[a].loss < group[b].loss;
  });
  std::vector<std::size_t> hull;
  const auto rate = [&](std::size_t a, std::size_t b) {
    return (group[a].loss - group[b].loss) / (group[b].cost - group[a].cost);
  };
  for (const std::size_t p : order) {
    if (!hull.empty() && group[p].loss >= group[hull.back()].loss) continue;
    while (hull.size() > 1 && rate(hull[hull.size() - 2], hull.back()) < rate(hull.back(), p)) hull.pop_back();
    hull.push_back(p);
  }
  return hull;
}

Allocation cheapest(const std::vector<Group>& groups) {
  Allocation allocation;
  for (const Group& group : groups) allocation.choice.push_back(lower_hull(group).front());
  add_up(groups, allocation);
  allocation.bound = allocation.loss;
  return allocation;
}

std::optional<Allocation> allocate(const std::vector<Group>& groups, double budget) {
  std::vector<std::vector<std::size_t>> hulls;
  Allocation allocation;
  for (const Group& group : groups) {
    hulls.push_back(lower_hull(group));
    allocation.choice.push_back(hulls.back().front());
  }
  add_up(groups, allocation);
  if (allocation.cost > budget) return std::nullopt;

  double spent = allocation.cost, loss = allocation.loss;
  bool relaxed = false;  // the budget has bound, `bound` is known
  std::vector<bool> stopped(groups.size(), false);
  for (const HullStep& step : steps_of(hulls, groups)) {
    const bool fits = spent + step.cost <= budget;
    if (!fits && !relaxed) {
      relaxed = true;
      allocation.price = step.rate();
      allocation.bound = loss - (budget - spent) * step.rate();
    }
    if (!fits) stopped[step.group] = true;
    if (stopped[step.group]) continue;
    spent += step.cost;
    loss -= step.saved;
    allocation.choice[step.group] = step.target;
  }
  add_up(groups, allocation);
  if (!relaxed) {
    allocation.bound = allocation.loss;
    return allocation;
  }
  spend_rest(groups, budget, allocation);
  return allocation;
}

}  // namespace afm
