#include <algorithm>
#include <limits>
#include <vector>

#include "libafm/compress/plan_allocate.h"

namespace afm {
namespace {

// Note [Core of the knapsack]
// At the price t of the relaxation a point has the excess loss + t cost - (the least of its group), and a choice that
// beats `start` has excesses that sum to less than the gap start.loss - bound. So few points can be in it, and partial
// choices are dropped as soon as their excess is above the gap or another one is both cheaper and better (Dyer,
// Riha and Walker 1995).

struct CorePoint {
  std::size_t index = 0;
  Point point;
  double excess = 0.0;
};

struct State {
  double cost = 0.0, loss = 0.0, excess = 0.0;
  std::size_t parent = 0, point = 0;  // in the stage before, in the core of its group
};

std::vector<CorePoint> core_of(const Group& group, double price, double gap) {
  double least = std::numeric_limits<double>::infinity();
  for (const Point& point : group) least = std::min(least, point.loss + price * point.cost);
  std::vector<CorePoint> core;
  for (std::size_t p = 0; p < group.size(); ++p) {
    const double excess = group[p].loss + price * group[p].cost - least;
    if (excess <= gap) core.push_back({p, group[p], excess});
  }
  return core;
}

// Ascending in cost, falling in loss.
void keep_undominated(std::vector<State>& states, std::size_t most) {
  std::ranges::sort(
      states, [](const State& a, const State& b) { return a.cost != b.cost ? a.cost < b.cost : a.loss < b.loss; });
  double best = std::numeric_limits<double>::infinity();
  std::erase_if(states, [&best](const State& state) {
    if (state.loss >= best) return true;
    best = state.loss;
    return false;
  });
  if (states.size() <= most) return;
  std::ranges::nth_element(states, states.begin() + static_cast<std::ptrdiff_t>(most), {}, &State::excess);
  states.resize(most);
}

}  // namespace

Allocation refine(const std::vector<Group>& groups, double budget, const Allocation& start, std::size_t most_states) {
  const double gap = start.loss - start.bound;
  if (groups.empty() || gap <= 1e-12 * start.loss) return start;
  std::vector<std::vector<CorePoint>> cores;
  std::vector<double> least_cost(groups.size() + 1, 0.0);  // of the groups from here on
  for (const Group& group : groups) cores.push_back(core_of(group, start.price, gap * (1.0 + 1e-9)));
  for (std::size_t g = groups.size(); g-- > 0;) {
    const auto cheapest = std::ranges::min(cores[g], {}, [](const CorePoint& p) { return p.point.cost; });
    least_cost[g] = least_cost[g + 1] + cheapest.point.cost;
  }

  std::vector<std::vector<State>> stages = {{State{}}};
  for (std::size_t g = 0; g < groups.size(); ++g) {
    std::vector<State> next;
    for (std::size_t s = 0; s < stages.back().size(); ++s) {
      const State& from = stages.back()[s];
      for (std::size_t p = 0; p < cores[g].size(); ++p) {
        const CorePoint& core = cores[g][p];
        const State to = {from.cost + core.point.cost, from.loss + core.point.loss, from.excess + core.excess, s, p};
        if (to.excess <= gap * (1.0 + 1e-9) && to.cost + least_cost[g + 1] <= budget) next.push_back(to);
      }
    }
    keep_undominated(next, most_states);
    if (next.empty()) return start;
    stages.push_back(std::move(next));
  }
  const State& best = std::ranges::min(stages.back(), {}, &State::loss);
  if (best.loss >= start.loss) return start;
  Allocation refined = start;
  refined.cost = best.cost;
  refined.loss = best.loss;
  const State* state = &best;
  for (std::size_t g = groups.size(); g-- > 0;) {
    refined.choice[g] = cores[g][state->point].index;
    state = &stages[g][state->parent];
  }
  return refined;
}

}  // namespace afm
