#include "libafm/compress/plan_evaluate.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "libafm/compress/layer_ranks.h"

namespace afm {
namespace {

// Partial choices that refine() follows: many for a plan, few where configurations are only compared.
constexpr std::size_t kFinalStates = 4000, kSearchStates = 100;

// What one more input costs. Over many of them, for the rounding of int4 to bytes is not linear.
Size input_slope(const LayerStatistics& layer, const LayerPlan& plan, const StorageRules& rules) {
  constexpr double kInputs = 1024.0;
  return (1.0 / kInputs) * (linear_size(layer, plan, kInputs, rules) - linear_size(layer, plan, 0.0, rules));
}

int64_t expanded_width(const LayerStatistics& table) { return rank_count(table) * table.embedding_dim; }

}  // namespace

// A group of the allocation and what its points stand for.
struct Evaluator::Problem {
  struct Source {
    std::size_t choice = 0;
    std::vector<std::size_t> forms = {};      // of the choice, or
    std::vector<FieldForm> field_forms = {};  // of its field `field`
    std::size_t field = 0;
  };
  Currency currency = Currency::kParameters;
  std::vector<Group> groups;
  std::vector<Source> sources;
  double cost = 0.0, loss = 0.0;               // of what is fixed
  std::map<std::size_t, Size> per_coordinate;  // table -> what its readers cost for each coordinate
  std::map<std::size_t, std::size_t> forms;    // choice -> fixed form
};

Evaluator::Evaluator(const Statistics& statistics, const PlanOptions& options, const std::vector<LayerChoice>& choices)
    : statistics_(statistics), options_(options), choices_(choices), rules_(storage_rules(statistics, options)) {
  std::map<std::string, std::size_t> number;
  for (std::size_t c = 0; c < choices.size(); ++c) number[choices[c].path] = c;
  for (std::size_t t = 0; t < choices.size() && rules_.fold; ++t) {
    if (!choices[t].layer->is_embedding) continue;
    const Size none = folded_cross_change(statistics, *choices[t].layer, options, 0.0, rules_);
    const Size one = folded_cross_change(statistics, *choices[t].layer, options, 1.0, rules_);
    crosses_[t] = {none, one - none};
    for (const std::string& path : first_layers_of(statistics, *choices[t].layer, options)) {
      const auto found = number.find(path);
      if (found == number.end()) {
        other_readers_.push_back({t, &statistics.layers.at(path)});
      } else if (table_of_.emplace(found->second, t).second) {
        readers_.push_back(found->second);
      }
    }
  }
  untouched_ = dense_size(statistics);
  for (const LayerChoice& choice : choices) {
    untouched_ = untouched_ - layer_size(*choice.layer, LayerPlan(), rules_);
  }
  for (const Reader& reader : other_readers_) {
    untouched_ = untouched_ - layer_size(*reader.layer, LayerPlan(), rules_);
  }
}

void Evaluator::add_linear(Problem& problem, std::size_t c, const Fixed& fixed) const {
  const LayerChoice& choice = choices_[c];
  const auto table = table_of_.find(c);
  const bool folded = table != table_of_.end() && is_folded(table->second, fixed);
  const auto inputs =
      static_cast<double>(choice.layer->in_features - (folded ? expanded_width(*choices_[table->second].layer) : 0));
  const auto cost_of = [&](std::size_t form) {
    const LayerPlan plan = layer_plan(*choice.layer, options_, choice.forms[form].ranks);
    return amount_of(linear_size(*choice.layer, plan, inputs, rules_), problem.currency);
  };
  if (const auto form = fixed.find(c); folded && form != fixed.end()) {
    const LayerPlan plan = layer_plan(*choice.layer, options_, choice.forms[form->second].ranks);
    problem.per_coordinate[table->second] += input_slope(*choice.layer, plan, rules_);
    problem.cost += cost_of(form->second);
    problem.loss += choice.forms[form->second].loss;
    problem.forms[c] = form->second;
    return;
  }
  Group group;
  Problem::Source source{.choice = c};
  const double dense = cost_of(0);
  for (std::size_t form = 0; form < choice.forms.size(); ++form) {
    const double cost = form == 0 ? dense : cost_of(form);
    if (form > 0 && cost >= dense) continue;  // factors that do not pay
    group.push_back({cost, choice.forms[form].loss});
    source.forms.push_back(form);
  }
  problem.groups.push_back(std::move(group));
  problem.sources.push_back(std::move(source));
}

void Evaluator::add_table(Problem& problem, std::size_t c) const {
  const LayerChoice& choice = choices_[c];
  const LayerStatistics& layer = *choice.layer;
  const LayerPlan form = form_of(layer, options_);
  const auto amount = [&](const Size& size) { return amount_of(size, problem.currency); };
  const double readers = amount(problem.per_coordinate[c]);
  if (choice.fields.empty()) {
    Group group;
    Problem::Source source{.choice = c};
    for (std::size_t f = 1; f < choice.forms.size(); ++f) {
      const LayerPlan plan = layer_plan(layer, options_, choice.forms[f].ranks);
      double width = 0.0;
      for (const int64_t rank : plan.ranks) width += static_cast<double>(rank);
      group.push_back({amount(table_size(layer, plan, rules_)) + width * readers, choice.forms[f].loss});
      source.forms.push_back(f);
    }
    problem.groups.push_back(std::move(group));
    problem.sources.push_back(std::move(source));
    return;
  }
  if (form.basis == Basis::kShared) {
    // The most that it can be, for it is as long as the largest rank.
    const LayerPlan largest = layer_plan(layer, options_, {layer.embedding_dim});
    problem.cost += amount(shared_basis_size(layer, largest, rules_));
  }
  const TierCosts costs = {.rows = [&](const Tier& tier) { return amount(tier_size(layer, form, tier, rules_)); },
                           .coordinate = amount(coordinate_size(layer, form, rules_)) + readers};
  for (std::size_t j = 0; j < choice.fields.size(); ++j) {
    Group group;
    Problem::Source source{.choice = c, .field_forms = forms_of(choice.fields[j], costs), .field = j};
    for (const FieldForm& made : source.field_forms) {
      const double stored = amount(field_size(layer, form, j, made.rank, made.tiers, rules_));
      group.push_back({stored + static_cast<double>(made.rank) * readers, made.loss});
    }
    problem.groups.push_back(std::move(group));
    problem.sources.push_back(std::move(source));
  }
}

Evaluator::Problem Evaluator::problem_of(const Fixed& fixed, Currency currency) const {
  Problem problem;
  problem.currency = currency;
  problem.cost = amount_of(untouched_, currency);
  for (const Reader& reader : other_readers_) {
    const bool folded = is_folded(reader.table, fixed);
    const int64_t gone = folded ? expanded_width(*choices_[reader.table].layer) : 0;
    const auto inputs = static_cast<double>(reader.layer->in_features - gone);
    problem.cost += amount_of(linear_size(*reader.layer, LayerPlan(), inputs, rules_), currency);
    if (folded) problem.per_coordinate[reader.table] += input_slope(*reader.layer, LayerPlan(), rules_);
  }
  for (const auto& [table, cross] : crosses_) {
    if (!is_folded(table, fixed)) continue;
    problem.cost += amount_of(cross.fixed, currency);
    problem.per_coordinate[table] += cross.per_coordinate;
  }
  for (std::size_t c = 0; c < choices_.size(); ++c) {
    if (!choices_[c].layer->is_embedding) add_linear(problem, c, fixed);
  }
  // After their readers, which set the price of a coordinate.
  for (std::size_t c = 0; c < choices_.size(); ++c) {
    const LayerStatistics& layer = *choices_[c].layer;
    if (!layer.is_embedding) continue;
    if (!fixed.contains(c)) {
      add_table(problem, c);
      continue;
    }
    problem.cost += amount_of(table_size(layer, layer_plan(layer, options_, {}), rules_), currency);
    problem.forms[c] = 0;
  }
  return problem;
}

RankPlan Evaluator::plan_of(const Problem& problem, const std::vector<std::size_t>& chosen) const {
  std::map<std::size_t, LayerPlan> plans;
  for (const auto& [c, form] : problem.forms) {
    plans[c] = layer_plan(*choices_[c].layer, options_, choices_[c].forms[form].ranks);
  }
  for (std::size_t g = 0; g < chosen.size(); ++g) {
    const Problem::Source& source = problem.sources[g];
    const LayerChoice& choice = choices_[source.choice];
    if (source.field_forms.empty()) {
      plans[source.choice] = layer_plan(*choice.layer, options_, choice.forms[source.forms[chosen[g]]].ranks);
      continue;
    }
    if (!plans.contains(source.choice)) {
      plans[source.choice] =
          layer_plan(*choice.layer, options_, std::vector<int64_t>(choice.layer->cardinalities.size(), 0));
    }
    const FieldForm& form = source.field_forms[chosen[g]];
    LayerPlan& plan = plans[source.choice];
    plan.ranks[source.field] = form.rank;
    if (form.tiers.empty()) continue;
    plan.tiers.resize(plan.ranks.size());
    plan.tiers[source.field] = form.tiers;
  }
  RankPlan plan;
  for (auto& [c, layer] : plans) add_to(plan, choices_[c].path, std::move(layer));
  return plan;
}

Evaluation Evaluator::evaluate(const Fixed& fixed, const Budget& budget, bool with_plan) const {
  Problem problem = problem_of(fixed, budget.currency);
  // With a limit on the loss the two change places.
  if (budget.limits_loss) {
    for (Group& group : problem.groups) {
      for (Point& point : group) std::swap(point.cost, point.loss);
    }
  }
  const double left = budget.amount - (budget.limits_loss ? problem.loss : problem.cost);
  std::optional<Allocation> found = allocate(problem.groups, left);
  const bool within = found.has_value();
  if (!within) found = cheapest(problem.groups);
  if (within) found = refine(problem.groups, left, *found, with_plan ? kFinalStates : kSearchStates);
  if (budget.limits_loss) std::swap(found->cost, found->loss);
  Evaluation evaluation{within, problem.cost + found->cost, problem.loss + found->loss, {}};
  if (with_plan) evaluation.plan = plan_of(problem, found->choice);
  return evaluation;
}

}  // namespace afm
