#pragma once

// Private: one layer under the policies energy and uniform: how its ranks grow with the share of variance or of rank
// that it is to keep.

#include <cstdint>
#include <string>
#include <vector>

#include "libafm/compress/plan_budget.h"
#include "libafm/compress/plan_costs.h"
#include "libafm/compress/statistics.h"
#include "libafm/nn/rank_plan.h"

namespace afm {

// One per field of an embedding, one for a linear layer. Empty: the layer stays dense, because its factors do not pay.
using Ranks = std::vector<int64_t>;

// What a layer may become next.
struct Growth {
  Ranks ranks;
  double cost = 0.0;    // more than now
  double energy = 0.0;  // more of the layer's variance than now
};

class PlanCandidate {
 public:
  // `statistics` must outlive the candidate. Costs are those of the layer itself in `currency`.
  PlanCandidate(std::string path, const LayerStatistics& statistics, const PlanOptions& options, Currency currency,
                const StorageRules& rules);

  const std::string& path() const { return path_; }
  const LayerStatistics& layer() const { return *statistics_; }

  // The fewest components, the largest first, that keep `energy` > 0 of the variance; dense when all keep less.
  Ranks for_energy(double energy) const;
  // Every value of `energy` above which the ranks change.
  std::vector<double> energy_levels() const;
  // `share` of the largest rank for every field, at least 1.
  Ranks for_share(double share) const;
  std::vector<double> share_levels() const;

  // At most `count` different ranks from 0 on, at even distances, all below where factors cost as much as the layer.
  std::vector<Ranks> ladder(int64_t count) const;

  double kept_energy(const Ranks& ranks) const;
  std::vector<Growth> growths(const Ranks& ranks) const;

 private:
  // Components of one field that come together: one, or several where a shared basis has a weak one before a strong
  // one.
  struct Step {
    std::size_t field = 0;
    int64_t rank = 0;       // of the field after the step
    int64_t size = 1;       // ranks it adds
    double variance = 0.0;  // it adds
    double average() const { return variance / static_cast<double>(size); }
  };
  std::vector<Step> steps_of(std::size_t field, const std::vector<double>& variance, int64_t limit) const;
  Ranks ranks_after(std::ptrdiff_t steps) const;
  double cost(const Ranks& ranks) const;
  Ranks dense_unless_smaller(Ranks ranks) const;
  double discarded(const Ranks& ranks) const;

  std::string path_;
  const LayerStatistics* statistics_;
  LayerPlan form_;
  Currency currency_;
  StorageRules rules_;
  std::vector<std::vector<double>> discarded_;  // [fields][largest rank + 1] output variance lost at each rank
  std::vector<std::vector<Step>> field_steps_;  // [fields]
  std::vector<Step> steps_;                     // of all fields, the largest average first
  std::vector<double> kept_;                    // [steps + 1] share of the variance after so many steps
};

}  // namespace afm
