#pragma once

// Private: the multiple-choice knapsack behind a rank plan. Each group (a layer, a field) takes one of its points; the
// sum of losses is to be least while the sum of costs stays within a budget. Swapping cost and loss of every point
// gives the cheapest choice within a loss.

#include <cstddef>
#include <optional>
#include <vector>

namespace afm {

struct Point {
  double cost = 0.0, loss = 0.0;
};
using Group = std::vector<Point>;  // at least one

struct Allocation {
  std::vector<std::size_t> choice;  // a point of each group
  double cost = 0.0, loss = 0.0;    // sums
  double bound = 0.0;               // no choice within the budget has a smaller loss: that of the linear relaxation
  double price = 0.0;               // loss per cost at which the relaxation stops spending; 0 when the budget is ample
};

// Points on the lower convex hull, from the cheapest to the one of least loss; of equals the first.
std::vector<std::size_t> lower_hull(const Group& group);

// The cheapest points of all groups, of equals the best.
Allocation cheapest(const std::vector<Group>& groups);

// Greedy along the hulls, most loss saved per cost first, then by whatever still fits: within one hull step of `bound`.
// Nothing when the cheapest points do not fit.
std::optional<Allocation> allocate(const std::vector<Group>& groups, double budget);

// The same or better: the best choice there is, unless the search takes more than `most_states` at a time.
Allocation refine(const std::vector<Group>& groups, double budget, const Allocation& start, std::size_t most_states);

}  // namespace afm
