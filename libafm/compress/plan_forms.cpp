#include <algorithm>
#include <limits>
#include <utility>

#include "libafm/compress/plan_tiers.h"

namespace afm {
namespace {

struct LossAndCost {
  double loss = 0.0, cost = 0.0;
};
using Curve = std::vector<LossAndCost>;  // by rank

// The first `ranks_.size()` tiers have rows of their own, of these ranks; the others share one row each, of the last of
// these ranks. There is always a first one.
class GrowingField {
 public:
  GrowingField(const std::vector<TierLosses>& tiers, const TierCosts& costs);

  FieldForm form() const;
  bool advance(std::vector<FieldForm>& forms);  // adds forms; false when nothing saves loss any more

 private:
  // Every tier up to this one gets rows of its own, of at least this rank.
  struct Change {
    std::size_t tier = 0;
    int64_t rank = 0;
  };
  Change best_change() const;
  LossAndCost value_after(const Change& change) const;
  std::size_t count() const { return rows_.size(); }
  int64_t limit() const { return static_cast<int64_t>(own_[0].size()) - 1; }

  std::vector<int64_t> rows_;
  std::vector<Curve> own_;          // [tiers]
  std::vector<Curve> shared_from_;  // [tiers + 1] sums of all tiers from here on, each with a shared row
  bool stores_nothing_at_0_ = false;
  std::vector<int64_t> ranks_ = {0};
};

GrowingField::GrowingField(const std::vector<TierLosses>& tiers, const TierCosts& costs) {
  const std::size_t ranks = tiers[0].own.size();
  shared_from_.assign(tiers.size() + 1, Curve(ranks));
  for (std::size_t t = tiers.size(); t-- > 0;) {
    own_.emplace_back(ranks);
    for (std::size_t k = 0; k < ranks; ++k) {
      const Tier tier = {tiers[t].rows, static_cast<int64_t>(k), false};
      const double per_coordinate = t == 0 ? costs.coordinate * static_cast<double>(k) : 0.0;
      own_.back()[k] = {tiers[t].own[k], costs.rows(tier) + per_coordinate};
      if (t == 0) continue;  // never shared
      shared_from_[t][k] = {shared_from_[t + 1][k].loss + tiers[t].shared[k],
                            shared_from_[t + 1][k].cost + costs.rows({tier.rows, tier.rank, true})};
    }
  }
  std::ranges::reverse(own_);
  for (const TierLosses& tier : tiers) rows_.push_back(tier.rows);
  stores_nothing_at_0_ = costs.rows({1, 0, false}) == 0.0;
}

// Without a copy of the ranks: this runs for each change of each step of each field.
LossAndCost GrowingField::value_after(const Change& change) const {
  const std::size_t own = std::max(ranks_.size(), change.tier + 1);
  LossAndCost sum;
  std::size_t rank = 0;
  for (std::size_t t = 0; t < own; ++t) {
    const int64_t now = t < ranks_.size() ? ranks_[t] : 0;
    rank = static_cast<std::size_t>(t <= change.tier ? std::max(now, change.rank) : now);
    sum.loss += own_[t][rank].loss;
    sum.cost += own_[t][rank].cost;
  }
  return {sum.loss + shared_from_[own][rank].loss, sum.cost + shared_from_[own][rank].cost};
}

GrowingField::Change GrowingField::best_change() const {
  const LossAndCost now = value_after({0, 0});
  Change best{count(), 0};
  double best_rate = 0.0;
  for (std::size_t t = 0; t < count(); ++t) {
    for (int64_t rank = t < ranks_.size() ? ranks_[t] + 1 : 0; rank <= limit(); ++rank) {
      const auto [loss, cost] = value_after({t, rank});
      const double saved = now.loss - loss, more = cost - now.cost;
      const double rate = more > 0.0 ? saved / more : std::numeric_limits<double>::infinity();
      if (!(saved > 0.0) || rate <= best_rate) continue;
      best = {t, rank};
      best_rate = rate;
    }
  }
  return best;
}

bool GrowingField::advance(std::vector<FieldForm>& forms) {
  const Change change = best_change();
  if (change.tier == count()) return false;
  int64_t rank = change.tier < ranks_.size() ? ranks_[change.tier] + 1 : 0;
  ranks_.resize(std::max(ranks_.size(), change.tier + 1), 0);
  // Ranks on the way are forms too: an allocation that ends between two steps may end there.
  for (; rank <= change.rank; ++rank) {
    for (std::size_t t = 0; t <= change.tier; ++t) ranks_[t] = std::max(ranks_[t], rank);
    forms.push_back(form());
  }
  return true;
}

// Neighbours of one rank with rows of their own are one tier, and a single such tier needs no list.
FieldForm GrowingField::form() const {
  FieldForm form{.rank = ranks_[0], .loss = shared_from_[ranks_.size()][static_cast<std::size_t>(ranks_.back())].loss};
  for (std::size_t t = 0; t < count(); ++t) {
    const bool shared = t >= ranks_.size();
    const Tier tier = {rows_[t], shared ? ranks_.back() : ranks_[t], shared};
    if (!shared) form.loss += own_[t][static_cast<std::size_t>(tier.rank)].loss;
    const bool same = t > 0 && !form.tiers.back().shared && !shared && form.tiers.back().rank == tier.rank;
    same ? void(form.tiers.back().rows += tier.rows) : form.tiers.push_back(tier);
  }
  const bool nothing_stored = form.rank == 0 && stores_nothing_at_0_;
  if (nothing_stored || (form.tiers.size() == 1 && !form.tiers[0].shared)) form.tiers.clear();
  return form;
}

}  // namespace

std::vector<FieldForm> forms_of(const std::vector<TierLosses>& tiers, const TierCosts& costs) {
  GrowingField field(tiers, costs);
  std::vector<FieldForm> forms = {field.form()};
  while (field.advance(forms)) {
  }
  return forms;
}

}  // namespace afm
