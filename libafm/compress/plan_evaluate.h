#pragma once

// Private: the best choice of forms while those of some layers are fixed.
//
// Note [What is fixed]
// With folding, a linear layer behind an embedding costs its rank for each coordinate of the latents: a product of two
// choices, which no allocation over independent groups can have. So the forms of these layers are fixed, one after the
// other, each coordinate then has a price, and the rest is independent. The same for an embedding that stays dense.

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "libafm/compress/plan_allocate.h"
#include "libafm/compress/plan_search.h"

namespace afm {

using Fixed = std::map<std::size_t, std::size_t>;  // choice -> form; a table may only be fixed to its dense form 0

struct Evaluation {
  bool within = false;  // the budget can be met; else cost and loss are those of the cheapest choice
  double cost = 0.0, loss = 0.0;
  RankPlan plan;  // only when asked for
};

class Evaluator {
 public:
  // All must outlive it.
  Evaluator(const Statistics& statistics, const PlanOptions& options, const std::vector<LayerChoice>& choices);

  // Choices whose form must be fixed unless what they read is fixed to be dense.
  const std::vector<std::size_t>& readers() const { return readers_; }
  std::size_t table_of(std::size_t reader) const { return table_of_.at(reader); }
  Evaluation evaluate(const Fixed& fixed, const Budget& budget, bool with_plan) const;

 private:
  // Layers that read table `table` and are no choice.
  struct Reader {
    std::size_t table = 0;
    const LayerStatistics* layer = nullptr;
  };
  // The change of a cross network.
  struct Cross {
    Size fixed, per_coordinate;
  };
  struct Problem;  // groups and what is fixed
  Problem problem_of(const Fixed& fixed, Currency currency) const;
  void add_linear(Problem& problem, std::size_t choice, const Fixed& fixed) const;
  void add_table(Problem& problem, std::size_t choice) const;
  bool is_folded(std::size_t table, const Fixed& fixed) const { return rules_.fold && !fixed.contains(table); }
  RankPlan plan_of(const Problem& problem, const std::vector<std::size_t>& chosen) const;

  const Statistics& statistics_;
  const PlanOptions& options_;
  const std::vector<LayerChoice>& choices_;
  StorageRules rules_;
  std::map<std::size_t, std::size_t> table_of_;  // reader -> table, both choices
  std::vector<std::size_t> readers_;
  std::vector<Reader> other_readers_;
  std::map<std::size_t, Cross> crosses_;  // of tables that are folded
  Size untouched_;                        // of everything that is neither a choice nor a reader
};

}  // namespace afm
