#include "libafm/compress/factorize_tables.h"

#include <algorithm>
#include <cstdint>

#include <ATen/ATen.h>

#include "libafm/linalg/tensor_rules.h"

namespace afm {
namespace {

// One field as it is to be factorized, d wide: D, or D + 1 where the plan is joint.
struct FieldTable {
  at::Tensor counts;  // [N_j] float64, the weight of each row in the mean of a shared tier
  at::Tensor mean;    // [d] float64, where coordinates that a tier lacks are
  Spectrum spectrum = {};
  OutputMetric metric = {};
  std::vector<Tier> tiers = {};
  bool unseen_are_noise = false;
};

int64_t first_row(const nn::EmbeddingImpl& layer, std::size_t field) {
  int64_t row = 0;
  for (std::size_t j = 0; j < field; ++j) row += layer.options.cardinalities[j];
  return row;
}

at::Tensor wide_of(const nn::EmbeddingImpl& layer, std::size_t field, const at::Tensor& wide) {
  return wide.narrow(0, first_row(layer, field), layer.options.cardinalities[field]);
}

// [N_j, D], joint: [N_j, D + 1] with the wide weights. A view where the table is one of floats.
at::Tensor rows_of(const nn::EmbeddingImpl& layer, std::size_t field, bool joint) {
  if (layer.options.bits == Bits::kFloat) {
    const at::Tensor rows =
        layer.weight.detach().narrow(0, first_row(layer, field), layer.options.cardinalities[field]);
    return joint ? rows : rows.narrow(1, 0, layer.options.embedding_dim);
  }
  const at::Tensor values = layer.table(static_cast<int64_t>(field));
  if (!joint) return values;
  return at::cat({values, wide_of(layer, field, layer.wide_weights()).unsqueeze(1)}, 1);
}

const std::vector<Tier>& tiers_of(const LayerPlan& plan, std::size_t field) {
  static const std::vector<Tier> kNone;
  return plan.tiers.empty() ? kNone : plan.tiers[field];
}

// Calls work(begin, rows [n, d]) for pieces of a table, each small enough to be copied.
template <typename Work>
void for_each_piece(const at::Tensor& rows, Work work) {
  const int64_t step = rows_per_chunk(rows.size(1), rows.device());
  for (int64_t begin = 0; begin < rows.size(0); begin += step) {
    work(begin, rows.narrow(0, begin, std::min(step, rows.size(0) - begin)));
  }
}

// The mean of rows that share one, by counts; by their number where none was seen. float64.
at::Tensor shared_row(const at::Tensor& rows, const at::Tensor& counts) {
  const double total = counts.sum().item<double>();
  const at::Tensor weights =
      total > 0.0 ? counts / total : at::full_like(counts, 1.0 / static_cast<double>(rows.size(0)));
  at::Tensor mean = at::zeros({rows.size(1)}, rows.options().dtype(at::kDouble));
  for_each_piece(rows, [&](int64_t begin, const at::Tensor& piece) {
    mean += at::mv(piece.to(at::kDouble).t(), weights.narrow(0, begin, piece.size(0)).to(rows.device()));
  });
  return mean;
}

// The latent of the mean, so that basis and offset give the mean itself.
void give_unseen_the_mean(TableFactors& factors, const FieldTable& field) {
  const at::Tensor unseen = field.counts.eq(0.0).to(factors.latent.device()).nonzero().squeeze(1);
  const at::Tensor basis = factors.basis.to(at::kDouble);
  const at::Tensor latent = at::mv(basis, field.mean.to(basis.device())).to(factors.latent.scalar_type());
  factors.latent.index_copy_(0, unseen, latent.expand({unseen.size(0), latent.size(0)}));
}

// Latents [n, rank] of the ids from `first` on, whose rows are given.
at::Tensor tier_latents(const FieldTable& field, int64_t first, const Tier& tier, const at::Tensor& rows) {
  const at::Tensor no_mean = at::zeros_like(field.mean);
  at::Tensor centred = rows - field.mean.to(rows.options());
  const at::Tensor counts = field.counts.narrow(0, first, rows.size(0));
  if (field.unseen_are_noise) centred.mul_(counts.gt(0.0).to(centred.device()).unsqueeze(1));
  return mimic_table(centred, no_mean, field.spectrum, tier.rank, field.metric).latent;
}

// One latent [1, rank] for all of them.
at::Tensor shared_latent(const FieldTable& field, int64_t first, const Tier& tier, const at::Tensor& rows) {
  const at::Tensor no_mean = at::zeros_like(field.mean), counts = field.counts.narrow(0, first, rows.size(0));
  const bool noise = field.unseen_are_noise && counts.sum().item<double>() == 0.0;
  const at::Tensor mean = noise ? field.mean.to(rows.device()) : shared_row(rows, counts);
  const at::Tensor centred = (mean - field.mean.to(rows.device())).to(rows.options()).unsqueeze(0);
  return mimic_table(centred, no_mean, field.spectrum, tier.rank, field.metric).latent;
}

// Note [Latents of tiers]: the first coordinates of a latent are not the latent of a lower rank where the metric makes
// the projection oblique, so each tier is projected at its own rank; the basis of a lower rank is a prefix either way.
TableFactors tiered_factors(const FieldTable& field, const at::Tensor& rows, int64_t k) {
  TableFactors factors = mimic_table(rows.narrow(0, 0, 0), at::zeros_like(field.mean), field.spectrum, k, field.metric);
  factors.latent = at::zeros({rows.size(0), k}, rows.options());
  factors.offset = field.mean.to(rows.options());
  int64_t first = 0;
  for (const Tier& tier : field.tiers) {
    const at::Tensor own = rows.narrow(0, first, tier.rows);
    const at::Tensor latents = factors.latent.narrow(0, first, tier.rows).narrow(1, 0, tier.rank);
    if (tier.shared) {
      latents.copy_(shared_latent(field, first, tier, own).expand_as(latents));
    } else {
      for_each_piece(own, [&](int64_t begin, const at::Tensor& piece) {
        latents.narrow(0, begin, piece.size(0)).copy_(tier_latents(field, first + begin, tier, piece));
      });
    }
    first += tier.rows;
  }
  return factors;
}

TableFactors factors_of(const FieldTable& field, const at::Tensor& rows, int64_t k) {
  if (!field.tiers.empty()) return tiered_factors(field, rows, k);
  TableFactors factors = mimic_table(rows, field.mean, field.spectrum, k, field.metric);
  if (field.unseen_are_noise) give_unseen_the_mean(factors, field);
  return factors;
}

// Bases of a shared spectrum agree but for rounding; the longest one's rows take the place of the others'.
void share_basis(std::vector<TableFactors>& fields) {
  const auto longest =
      std::ranges::max_element(fields, {}, [](const TableFactors& factors) { return factors.basis.size(0); });
  const at::Tensor basis = longest->basis;
  for (TableFactors& factors : fields) factors.basis = basis.narrow(0, 0, factors.basis.size(0));
}

// Wide weights that keep a storage of their own share a row where the latents do.
at::Tensor shared_wide(const nn::EmbeddingImpl& layer, const LayerPlan& plan, const std::vector<at::Tensor>& counts) {
  const bool any = std::ranges::any_of(
      plan.tiers, [](const std::vector<Tier>& tiers) { return std::ranges::any_of(tiers, &Tier::shared); });
  if (!any || plan.joint || !layer.options.wide) return {};
  const at::Tensor wide = layer.wide_weights();
  for (std::size_t j = 0; j < plan.tiers.size(); ++j) {
    const at::Tensor own = wide_of(layer, j, wide);
    int64_t begin = 0;
    for (const Tier& tier : plan.tiers[j]) {
      const at::Tensor rows = own.narrow(0, begin, tier.rows);
      if (tier.shared) rows.copy_(shared_row(rows.unsqueeze(1), counts[j].narrow(0, begin, tier.rows)).expand_as(rows));
      begin += tier.rows;
    }
  }
  return wide;
}

EmbeddingFactors all_factors(const nn::EmbeddingImpl& layer, const LayerPlan& plan,
                             const std::vector<FieldTable>& tables) {
  EmbeddingFactors factors;
  std::vector<at::Tensor> counts;
  for (std::size_t j = 0; j < tables.size(); ++j) {
    counts.push_back(tables[j].counts);
    factors.fields.push_back(factors_of(tables[j], rows_of(layer, j, plan.joint), plan.ranks[j]));
  }
  if (plan.basis == Basis::kShared) share_basis(factors.fields);
  factors.wide = shared_wide(layer, plan, counts);
  return factors;
}

// The second moment of the rows of a table, all equal: its eigenvectors are the right singular vectors of the table.
at::Tensor second_moment(const at::Tensor& table) {
  Moments moments;
  moments.add(table);
  return (moments.scatter() + at::outer(moments.mean(), moments.mean()) * moments.count()).cpu();
}

}  // namespace

EmbeddingFactors mimicked_tables(const nn::EmbeddingImpl& layer, const LayerStatistics& statistics,
                                 const LayerPlan& plan, bool metric, double metric_eps, bool unseen_are_noise) {
  const std::vector<Directions> directions = output_directions(
      statistics, {.basis = plan.basis, .joint = plan.joint, .metric = metric, .metric_eps = metric_eps});
  const std::vector<Moments>& moments = moments_of(statistics, plan.joint);
  std::vector<FieldTable> tables;
  for (std::size_t j = 0; j < plan.ranks.size(); ++j) {
    tables.push_back({statistics.id_counts[j], moments[j].mean(), directions[j].spectrum, directions[j].metric,
                      tiers_of(plan, j), unseen_are_noise});
  }
  return all_factors(layer, plan, tables);
}

EmbeddingFactors svd_tables(const nn::EmbeddingImpl& layer, const LayerPlan& plan) {
  std::vector<FieldTable> tables;
  at::Tensor pooled;
  for (std::size_t j = 0; j < plan.ranks.size(); ++j) {
    const at::Tensor rows = rows_of(layer, j, plan.joint), moment = second_moment(rows);
    pooled = pooled.defined() ? pooled + moment : moment;
    tables.push_back({at::ones({rows.size(0)}, at::kDouble),
                      at::zeros({rows.size(1)}, at::kDouble),
                      plan.basis == Basis::kShared ? Spectrum() : spectrum_of(moment),
                      {},
                      tiers_of(plan, j)});
  }
  if (plan.basis == Basis::kShared) {
    const Spectrum shared = spectrum_of(pooled);
    for (FieldTable& table : tables) table.spectrum = shared;
  }
  return all_factors(layer, plan, tables);
}

}  // namespace afm
