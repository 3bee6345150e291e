#include "libafm/compress/plan_tiers.h"

#include <cmath>
#include <numeric>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include <torch/torch.h>

#include "libafm/compress/plan_curves.h"
#include "tests/compress/planned_layers.h"

namespace afm::testing {
namespace {

constexpr double kTierRounding = 1e-10;  // relative, of sums over a few hundred rows

// A table whose rows, counts and metric are known, with its statistics.
struct KnownTable {
  at::Tensor rows, counts;  // [N, D + 1], [N]
  LayerStatistics layer;
};

KnownTable known_table(int64_t seed, int64_t ids = 240, int64_t dim = 4) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  KnownTable table;
  table.rows = torch::randn({ids, dim + 1}, torch::kDouble) + torch::randn({dim + 1}, torch::kDouble);
  table.counts = (1000.0 / torch::arange(1, ids + 1, torch::kDouble)).floor();
  table.layer = table_layer({ids}, dim, {table.rows}, {table.counts});
  return table;
}

double quadratic(const at::Tensor& errors, const at::Tensor& metric, const at::Tensor& counts) {
  return (torch::mm(errors, metric).mul(errors).sum(1) * counts).sum().item<double>() / counts.sum().item<double>();
}

// Half the metric's error of the rows [begin, end) when they keep k coordinates, each its own or all those of their
// mean.
double direct_loss(const KnownTable& table, const OutputLoss& loss, int64_t begin, int64_t end, int64_t k,
                   bool shared) {
  const int64_t dim = loss.directions.spectrum.values.size(0);
  const at::Tensor mean = (table.rows * table.counts.unsqueeze(1)).sum(0) / table.counts.sum();
  const at::Tensor centred = (table.rows - mean).narrow(1, 0, dim).narrow(0, begin, end - begin);
  const at::Tensor counts = table.counts.narrow(0, begin, end - begin).unsqueeze(1);
  const at::Tensor encoder = torch::mm(loss.directions.metric.root, loss.directions.spectrum.vectors).narrow(1, 0, k);
  const at::Tensor decoder =
      torch::mm(loss.directions.metric.inverse, loss.directions.spectrum.vectors).narrow(1, 0, k);
  at::Tensor latent = torch::mm(centred, encoder);
  if (shared) latent = ((latent * counts).sum(0) / counts.sum()).expand_as(latent);
  const at::Tensor errors = centred - torch::mm(latent, decoder.t());
  const at::Tensor metric = table.layer.metric[0].narrow(0, 0, dim).narrow(1, 0, dim);
  const double share = counts.sum().item<double>() / table.counts.sum().item<double>();
  return 0.5 * share * quadratic(errors, metric, counts.squeeze(1));
}

TEST_CASE("a tier loses what its rows lose in the metric, with rows of their own or one for all") {
  const auto seed = GENERATE(range(0, 4));
  const bool joint = GENERATE(false, true);
  const KnownTable table = known_table(seed);
  const LayerPlan form = {.joint = joint};
  // The two coordinates of one direction only add up in the metric itself, so eps is all but nothing.
  const OutputLoss loss = std::move(output_losses(table.layer, form, 1e-9)[0]);
  const std::vector<int64_t> rows = tier_rows(table.layer, 0, 3);
  REQUIRE(rows.size() == 3);
  const auto tiers = tier_losses(table.layer, 0, loss.directions, loss.along, loss.limit, 0.0, rows);
  REQUIRE(loss.limit == (joint ? 5 : 4));
  int64_t begin = 0;
  for (const TierLosses& tier : tiers) {
    for (int64_t k = 0; k <= loss.limit; ++k) {
      const double own = direct_loss(table, loss, begin, begin + tier.rows, k, false);
      const double shared = direct_loss(table, loss, begin, begin + tier.rows, k, true);
      CHECK(std::abs(tier.own[static_cast<std::size_t>(k)] - own) < 1e-6 * loss.along[0]);
      CHECK(std::abs(tier.shared[static_cast<std::size_t>(k)] - shared) < 1e-6 * loss.along[0]);
    }
    begin += tier.rows;
  }
}

TEST_CASE("a shared row loses the wide weights of its block where they are stored with it") {
  const KnownTable table = known_table(7);
  const OutputLoss loss = std::move(output_losses(table.layer, {}, 1e-2)[0]);
  CHECK(loss.wide == 0.5 * table.layer.metric[0][4][4].item<double>());
  const std::vector<int64_t> rows = tier_rows(table.layer, 0, 2);
  const auto without = tier_losses(table.layer, 0, loss.directions, loss.along, loss.limit, 0.0, rows);
  const auto with = tier_losses(table.layer, 0, loss.directions, loss.along, loss.limit, loss.wide, rows);
  const at::Tensor wide = table.rows.select(1, 4).narrow(0, rows[0], rows[1]);
  const at::Tensor counts = table.counts.narrow(0, rows[0], rows[1]);
  const at::Tensor mean = (wide * counts).sum() / counts.sum();
  const double lost =
      loss.wide * ((wide - mean).square() * counts).sum().item<double>() / table.counts.sum().item<double>();
  CHECK(std::abs(with[1].shared[2] - without[1].shared[2] - lost) < kTierRounding * lost);
  CHECK(with[1].own == without[1].own);
}

TEST_CASE("tiers grow by about four from the rarest back, and end where blocks of ids end") {
  const KnownTable table = known_table(1, 1000);
  for (const int64_t most : {1, 2, 4, 50}) {
    const auto rows = tier_rows(table.layer, 0, most);
    CHECK(std::accumulate(rows.begin(), rows.end(), int64_t{0}) == 1000);
    CHECK(std::ssize(rows) <= most);
    int64_t end = 0;
    for (std::size_t t = 0; t < rows.size(); ++t) {
      end += rows[t];
      CHECK(std::ranges::any_of(table.layer.id_blocks[0], [end](const IdBlock& block) { return block.end == end; }));
      if (most == 4 && t > 0) CHECK(static_cast<double>(end) / static_cast<double>(end - rows[t]) > 2.0);
    }
  }
  CHECK(tier_rows(table.layer, 0, 4).size() == 4);
}

TEST_CASE("forms of a field grow from rank 0, nested, the last losing least") {
  const auto seed = GENERATE(range(0, 2));
  const int64_t most = GENERATE(1, 2, 5);
  const double coordinate = GENERATE(0.0, 30.0, 3000.0);
  const KnownTable table = known_table(seed);
  const OutputLoss loss = std::move(output_losses(table.layer, {.joint = true}, 1e-2)[0]);
  const auto tiers =
      tier_losses(table.layer, 0, loss.directions, loss.along, loss.limit, 0.0, tier_rows(table.layer, 0, most));
  const auto row_cost = [](const Tier& tier) { return static_cast<double>((tier.shared ? 1 : tier.rows) * tier.rank); };
  const auto forms = forms_of(tiers, {.rows = row_cost, .coordinate = coordinate});
  CHECK(forms[0].rank == 0);
  CHECK(forms[0].tiers.empty());
  CHECK(std::abs(forms[0].loss - tail_of(loss.along, 0)) <= kTierRounding * forms[0].loss);
  CHECK(forms.back().loss <= tail_of(loss.along, loss.limit) + kTierRounding * forms[0].loss);
  if (most == 1) CHECK(std::ssize(forms) == loss.limit + 1);
  bool shares = false;
  for (std::size_t f = 1; f < forms.size(); ++f) {
    // But for the first rank of a tier that leaves the shared row: alone it may save nothing.
    if (most == 1) CHECK(forms[f].loss < forms[f - 1].loss);
    const LayerPlan plan = {.ranks = {forms[f].rank}, .joint = true, .tiers = {forms[f].tiers}};
    CHECK(std::abs(layer_loss(table.layer, plan, 1e-2) - forms[f].loss) <= kTierRounding * forms[0].loss);
    int64_t rank = forms[f].rank, rows = 0;
    for (const Tier& tier : forms[f].tiers) {
      CHECK(tier.rank <= rank);
      rank = tier.rank;
      rows += tier.rows;
      shares |= tier.shared;
    }
    if (!forms[f].tiers.empty()) CHECK(rows == 240);
  }
  // Where coordinates are dear, all rows take each at once.
  if (most == 1 || coordinate == 0.0) CHECK(shares == (most > 1));
}

TEST_CASE("first ids that never occur do not keep the others from growing") {
  KnownTable table = known_table(3);
  table.counts.narrow(0, 0, 20).zero_();
  const at::Tensor metric = table.layer.metric[0];
  table.layer = table_layer({240}, 4, {table.rows}, {table.counts});
  table.layer.metric = {metric};
  const OutputLoss loss = std::move(output_losses(table.layer, {.joint = true}, 1e-2)[0]);
  const auto tiers =
      tier_losses(table.layer, 0, loss.directions, loss.along, loss.limit, 0.0, tier_rows(table.layer, 0, 4));
  REQUIRE(tiers[0].own[0] == 0.0);
  const auto forms = forms_of(tiers, {.rows = [](const Tier& tier) { return static_cast<double>(tier.rank); }});
  CHECK(forms.back().loss <= tail_of(loss.along, loss.limit) + kTierRounding * forms[0].loss);
}

}  // namespace
}  // namespace afm::testing
