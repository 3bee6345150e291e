#include "libafm/compress/plan_candidate.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "libafm/compress/layer_ranks.h"

namespace afm {
namespace {

// Moves a level past the rounding of the ratio that it stands for.
constexpr double kPastRounding = 1.0 + 1e-12;
// Of a share of variance that all components together keep.
constexpr double kShareRounding = 1e-12;

}  // namespace

PlanCandidate::PlanCandidate(std::string path, const LayerStatistics& statistics, const PlanOptions& options,
                             Currency currency, const StorageRules& rules)
    : path_(std::move(path)),
      statistics_(&statistics),
      form_(form_of(statistics, options)),
      currency_(currency),
      rules_(rules) {
  const std::vector<Directions> directions =
      output_directions(statistics, {.basis = form_.basis, .joint = form_.joint});
  double lost = 0.0;  // beyond the last step
  for (std::size_t field = 0; field < directions.size(); ++field) {
    const double share = share_of_rows(statistics, static_cast<int64_t>(field));
    std::vector<double> variance = directions[field].variance;
    for (double& value : variance) value *= share;
    std::vector<double>& discarded = discarded_.emplace_back(variance.size() + 1, 0.0);
    for (std::size_t k = variance.size(); k-- > 0;) discarded[k] = discarded[k + 1] + variance[k];
    const int64_t limit = std::min(directions[field].spectrum.rank, largest_rank(statistics, form_.joint));
    field_steps_.push_back(steps_of(field, variance, limit));
    steps_.insert(steps_.end(), field_steps_.back().begin(), field_steps_.back().end());
    lost += discarded[field_steps_.back().empty() ? 0 : static_cast<std::size_t>(field_steps_.back().back().rank)];
  }
  std::ranges::stable_sort(steps_, std::greater<>(), &Step::average);
  std::vector<double> after(steps_.size() + 1, lost);
  for (std::size_t s = steps_.size(); s-- > 0;) after[s] = after[s + 1] + steps_[s].variance;
  for (const double left : after) kept_.push_back(after.front() == 0.0 ? 1.0 : 1.0 - left / after.front());
}

// A field takes the first k directions, so a component cannot come before a weaker one that precedes it: the two are
// merged until averages fall (pool adjacent violators). Eigenvalues fall by themselves.
std::vector<PlanCandidate::Step> PlanCandidate::steps_of(std::size_t field, const std::vector<double>& variance,
                                                         int64_t limit) const {
  std::vector<Step> steps;
  for (int64_t i = 0; i < limit; ++i) {
    steps.push_back({field, i + 1, 1, variance[static_cast<std::size_t>(i)]});
    while (steps.size() > 1 && steps.back().average() > steps[steps.size() - 2].average()) {
      const Step last = steps.back();
      steps.pop_back();
      steps.back() = {field, last.rank, steps.back().size + last.size, steps.back().variance + last.variance};
    }
  }
  while (!steps.empty() && steps.back().variance == 0.0) steps.pop_back();
  return steps;
}

Ranks PlanCandidate::ranks_after(std::ptrdiff_t steps) const {
  Ranks ranks(field_steps_.size(), 0);
  for (std::ptrdiff_t s = 0; s < steps; ++s) {
    const Step& step = steps_[static_cast<std::size_t>(s)];
    ranks[step.field] = step.rank;
  }
  return ranks;
}

Ranks PlanCandidate::for_energy(double energy) const {
  if (kept_.back() < energy - kShareRounding) return {};
  const auto enough = std::ranges::find_if(kept_, [energy](double kept) { return kept >= energy; });
  return dense_unless_smaller(ranks_after(std::min(enough - kept_.begin(), std::ssize(steps_))));
}

std::vector<double> PlanCandidate::energy_levels() const {
  std::vector<double> levels(kept_.begin() + (steps_.empty() ? 0 : 1), kept_.end());
  if (levels.back() < 1.0 - kShareRounding) levels.push_back(1.0);
  return levels;
}

Ranks PlanCandidate::for_share(double share) const {
  const auto largest = static_cast<double>(largest_rank(*statistics_));
  const auto rank = static_cast<int64_t>(std::clamp(std::round(share * largest), 1.0, largest));
  return dense_unless_smaller(Ranks(field_steps_.size(), rank));
}

std::vector<double> PlanCandidate::share_levels() const {
  const auto largest = static_cast<double>(largest_rank(*statistics_));
  std::vector<double> levels;
  for (double rank = 1.0; rank <= largest; ++rank) levels.push_back((rank - 0.5) / largest * kPastRounding);
  return levels;
}

std::vector<Ranks> PlanCandidate::ladder(int64_t count) const {
  const auto steps = std::ssize(steps_);
  std::ptrdiff_t paying = 0;
  while (paying < steps && cost(ranks_after(paying + 1)) < cost({})) ++paying;
  std::vector<Ranks> ladder;
  for (int64_t i = 0; i < count; ++i) {
    Ranks ranks = ranks_after(paying * i / std::max<int64_t>(count - 1, 1));
    if (ladder.empty() || ladder.back() != ranks) ladder.push_back(std::move(ranks));
  }
  return ladder;
}

double PlanCandidate::cost(const Ranks& ranks) const {
  LayerPlan plan = form_;
  if (ranks.empty()) {
    plan = {.bits = form_.bits, .scale = form_.scale};
  } else {
    plan.ranks = ranks;
  }
  return amount_of(layer_size(*statistics_, plan, rules_), currency_);
}

double PlanCandidate::kept_energy(const Ranks& ranks) const {
  const double total = discarded(Ranks(field_steps_.size(), 0));
  return total == 0.0 ? 1.0 : 1.0 - discarded(ranks) / total;
}

std::vector<Growth> PlanCandidate::growths(const Ranks& ranks) const {
  std::vector<Growth> growths;
  if (ranks.empty()) return growths;
  const double total = discarded(Ranks(field_steps_.size(), 0));
  for (std::size_t field = 0; field < ranks.size(); ++field) {
    const auto next = std::ranges::upper_bound(field_steps_[field], ranks[field], {}, &Step::rank);
    if (next == field_steps_[field].end()) continue;
    Ranks larger = ranks;
    larger[field] = next->rank;
    larger = dense_unless_smaller(std::move(larger));
    const double cost_more = cost(larger) - cost(ranks);
    const double energy = (discarded(ranks) - discarded(larger)) / total;
    growths.push_back({std::move(larger), cost_more, energy});
  }
  return growths;
}

Ranks PlanCandidate::dense_unless_smaller(Ranks ranks) const {
  if (cost(ranks) >= cost({})) ranks.clear();
  return ranks;
}

double PlanCandidate::discarded(const Ranks& ranks) const {
  double sum = 0.0;
  for (std::size_t field = 0; field < ranks.size(); ++field) {
    sum += discarded_[field][static_cast<std::size_t>(ranks[field])];
  }
  return sum;
}

}  // namespace afm
