#include "libafm/compress/plan_curves.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include <ATen/ATen.h>

#include "libafm/compress/layer_ranks.h"
#include "libafm/compress/plan_costs.h"
#include "libafm/compress/plan_tiers.h"

namespace afm {
namespace {

// Note [Losses without eps]
// The directions q_i are those of M C M with M^2 = (1 - eps) G + eps g I, so dropping some changes y by
// M^-1 q_i q_i' M (y - mean) and costs tr(G Cov) = sum l_i q_i' M^-1 G M^-1 q_i. The last factor is 1 but for eps; what
// eps adds along directions without influence is no loss and must not buy ranks.
std::vector<double> without_eps(const Directions& directions, const at::Tensor& gauss_newton) {
  std::vector<double> along = directions.variance;
  const auto dim = static_cast<int64_t>(along.size());
  const at::Tensor decoder = at::mm(directions.metric.inverse, directions.spectrum.vectors);
  const at::Tensor share =
      at::mm(gauss_newton.narrow(0, 0, dim).narrow(1, 0, dim), decoder).mul_(decoder).sum(0).clamp_(0.0);
  for (std::size_t i = 0; i < along.size(); ++i) along[i] *= share.const_data_ptr<double>()[i];
  return along;
}

}  // namespace

double tail_of(const std::vector<double>& values, int64_t k) {
  return std::accumulate(values.rbegin(), values.rend() - k, 0.0);
}

std::vector<OutputLoss> output_losses(const LayerStatistics& layer, const LayerPlan& form, double metric_eps) {
  const DirectionOptions options = {
      .basis = form.basis, .joint = layer.is_embedding && form.joint, .metric = true, .metric_eps = metric_eps};
  std::vector<OutputLoss> losses;
  for (Directions& directions : output_directions(layer, options)) {
    const std::size_t output = losses.size();
    const at::Tensor& gauss_newton = layer.metric[output];
    // Losses along a shared basis are those of its ranks, not of its directions.
    std::vector<double> along =
        form.basis == Basis::kShared ? directions.variance : without_eps(directions, gauss_newton);
    const double share = share_of_rows(layer, static_cast<int64_t>(output));
    for (double& value : along) value *= 0.5 * share;
    int64_t limit = std::min(largest_rank(layer, form.joint), directions.spectrum.rank);
    // N rows around their mean; a shared basis is not made for them alone.
    if (layer.is_embedding && form.basis != Basis::kShared) limit = std::min(limit, layer.cardinalities[output] - 1);
    const double wide = layer.is_embedding && has_wide_column(layer, form)
                            ? 0.5 * gauss_newton[layer.embedding_dim][layer.embedding_dim].item<double>()
                            : 0.0;
    losses.push_back({std::move(directions), std::move(along), limit, wide});
  }
  return losses;
}

std::vector<double> losses_of(const LayerStatistics& layer, const LayerPlan& plan, double metric_eps) {
  std::vector<double> losses;
  for (const OutputLoss& output : output_losses(layer, plan, metric_eps)) {
    const std::size_t j = losses.size();
    const int64_t rank = plan.ranks[j];
    if (plan.tiers.empty() || plan.tiers[j].empty()) {
      losses.push_back(tail_of(output.along, rank));
      continue;
    }
    std::vector<int64_t> rows;
    for (const Tier& tier : plan.tiers[j]) rows.push_back(tier.rows);
    const auto tiers = tier_losses(layer, j, output.directions, output.along, rank, output.wide, rows);
    double loss = 0.0;
    for (std::size_t t = 0; t < tiers.size(); ++t) {
      const Tier& tier = plan.tiers[j][t];
      loss += (tier.shared ? tiers[t].shared : tiers[t].own)[static_cast<std::size_t>(tier.rank)];
    }
    losses.push_back(loss);
  }
  return losses;
}

double layer_loss(const LayerStatistics& layer, const LayerPlan& plan, double metric_eps) {
  if (plan.ranks.empty()) return 0.0;
  const std::vector<double> losses = losses_of(layer, plan, metric_eps);
  return std::accumulate(losses.begin(), losses.end(), 0.0);
}

}  // namespace afm
