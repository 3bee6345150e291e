#include "libafm/compress/plan_tiers.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <ATen/ATen.h>

namespace afm {
namespace {

constexpr double kTierGrowth = 4.0;  // of all ids up to a tier over all up to the one before

// Statistics without blocks have one.
std::vector<IdBlock> id_blocks_of(const LayerStatistics& layer, std::size_t field) {
  if (!layer.id_blocks.empty()) return layer.id_blocks[field];
  return {{0, layer.cardinalities[field], layer.joint.empty() ? layer.output[field] : layer.joint[field]}};
}

// The moments of the rows [begin, end) of a field. A block that is cut counts by its share of ids.
Moments moments_between(const std::vector<IdBlock>& blocks, int64_t begin, int64_t end) {
  Moments moments(blocks[0].rows.dim());
  for (const IdBlock& block : blocks) {
    const int64_t ids = std::min(end, block.end) - std::max(begin, block.begin);
    if (ids <= 0 || block.rows.count() == 0.0) continue;
    const double share = static_cast<double>(ids) / static_cast<double>(block.end - block.begin);
    moments.merge({block.rows.count() * share, block.rows.mean(), block.rows.scatter() * share});
  }
  return moments;
}

std::vector<double> as_values(const at::Tensor& values) {
  const at::Tensor contiguous = values.contiguous();
  const auto* data = contiguous.const_data_ptr<double>();
  return {data, data + contiguous.numel()};
}

// count times the variance along the columns of `encoder` [m, m], about 0.
at::Tensor energies(const at::Tensor& second_moment, const at::Tensor& encoder, double count) {
  return at::mm(second_moment, encoder).mul_(encoder).sum(0).clamp_min_(0.0) * count;
}

// What a block has along each direction: in all, and by its mean alone; and the variance of its wide weights.
struct BlockEnergy {
  at::Tensor all, of_mean;  // [m]
  double wide = 0.0;
};

BlockEnergy block_energy(const Moments& rows, const at::Tensor& centre, const at::Tensor& encoder) {
  const int64_t dim = centre.size(0);
  const at::Tensor covariance = rows.covariance();
  const at::Tensor shift = rows.mean().narrow(0, 0, dim) - centre;
  const at::Tensor of_mean = at::outer(shift, shift);
  BlockEnergy energy = {energies(covariance.narrow(0, 0, dim).narrow(1, 0, dim) + of_mean, encoder, rows.count()),
                        energies(of_mean, encoder, rows.count())};
  if (rows.dim() > dim) energy.wide = rows.count() * covariance[dim][dim].item<double>();
  return energy;
}

// What is lost when only the first k of `gains` are kept of `total`, for each k up to `limit`.
std::vector<double> losses_at(double total, const std::vector<double>& gains, int64_t limit) {
  std::vector<double> losses = {total};
  for (int64_t k = 0; k < limit; ++k) {
    losses.push_back(std::max(0.0, losses.back() - gains[static_cast<std::size_t>(k)]));
  }
  return losses;
}

double sum_of(const std::vector<double>& values) {
  double sum = 0.0;
  for (auto value = values.rbegin(); value != values.rend(); ++value) sum += *value;  // the smallest first
  return sum;
}

}  // namespace

std::vector<int64_t> tier_rows(const LayerStatistics& layer, std::size_t field, int64_t most) {
  const int64_t ids = layer.cardinalities[field];
  if (most <= 1) return {ids};
  const std::vector<IdBlock> blocks = id_blocks_of(layer, field);
  std::vector<int64_t> ends = {ids};
  double wanted = static_cast<double>(ids);
  for (int64_t tier = 1; tier < most; ++tier) {
    wanted /= kTierGrowth;
    int64_t nearest = 0;
    for (const IdBlock& block : blocks) {
      const auto distance = [wanted](int64_t end) { return std::abs(std::log(static_cast<double>(end) / wanted)); };
      if (block.end < ends.back() && (nearest == 0 || distance(block.end) < distance(nearest))) nearest = block.end;
    }
    if (nearest == 0) break;
    ends.push_back(nearest);
  }
  std::ranges::reverse(ends);
  std::vector<int64_t> rows = ends;
  for (std::size_t t = 1; t < ends.size(); ++t) rows[t] = ends[t] - ends[t - 1];
  return rows;
}

std::vector<TierLosses> tier_losses(const LayerStatistics& layer, std::size_t field, const Directions& directions,
                                    const std::vector<double>& along, int64_t limit, double wide,
                                    const std::vector<int64_t>& rows) {
  const std::vector<IdBlock> id_blocks = id_blocks_of(layer, field);
  const auto dim = static_cast<int64_t>(along.size());
  const at::Tensor& vectors = directions.spectrum.vectors;
  const at::Tensor encoder = directions.metric.is_plain() ? vectors : at::mm(directions.metric.root, vectors);
  const at::Tensor centre = moments_between(id_blocks, 0, layer.cardinalities[field]).mean().narrow(0, 0, dim);
  std::vector<BlockEnergy> blocks;
  at::Tensor total = at::zeros({dim}, at::kDouble);
  double count = 0.0;
  for (int64_t begin = 0; const int64_t length : rows) {
    const Moments moments = moments_between(id_blocks, begin, begin + length);
    begin += length;
    count += moments.count();
    blocks.push_back(block_energy(moments, centre, encoder));
    total += blocks.back().all;
  }
  // Each direction's loss is shared out by what the blocks have along it: for a field with one slot that is exact.
  const at::Tensor scale = at::where(total > 0.0, at::tensor(along, at::kDouble) / total, at::zeros_like(total));
  std::vector<TierLosses> tiers;
  for (std::size_t t = 0; t < rows.size(); ++t) {
    const std::vector<double> all = as_values(blocks[t].all * scale), of_mean = as_values(blocks[t].of_mean * scale);
    const double lost_wide = count > 0.0 ? wide * blocks[t].wide / count : 0.0;
    tiers.push_back({rows[t], losses_at(sum_of(all), all, limit), losses_at(sum_of(all) + lost_wide, of_mean, limit)});
  }
  return tiers;
}

}  // namespace afm
