#include "libafm/compress/statistics_recorder.h"

#include <algorithm>
#include <numeric>

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/data/batch.h"

namespace afm {
namespace {

constexpr double kAllowedShare = 1e-3;  // of rows that are not finite
constexpr int64_t kRadiusRows = 512;
constexpr int64_t kHeadRows = 1 << 14;  // of a table: telling a GPU of shorter blocks takes longer than the CPU's sums
constexpr double kRadiusSlack = 1.0 + 1e-4;  // above any rounding of a float32 norm

void check_finite_share(const std::string& what, double lost, double rows) {
  if (lost > kAllowedShare * rows) {
    fail<DataError>("{} has {:.0f} of {:.0f} outputs that are not finite, at most 1 in 1000 may be", what, lost, rows);
  }
}

Moments on_cpu(const Moments& moments, const std::string& what) {
  if (!moments.scatter().isfinite().all().item<bool>()) {
    fail<DataError>("{} has values whose squares are beyond float64", what);
  }
  return {moments.count(), moments.mean().cpu(), moments.scatter().cpu(), moments.skipped()};
}

std::vector<int64_t> starts_of(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> starts(sizes.size() + 1, 0);
  std::partial_sum(sizes.begin(), sizes.end(), starts.begin() + 1);
  return starts;
}

// [S] int64: `values[j]` for each slot of field j.
at::Tensor per_slot(const std::vector<int64_t>& values, const std::vector<int64_t>& slots, at::Device device) {
  const auto size = static_cast<int64_t>(slots.size());
  const at::Tensor repeats = at::tensor(slots, at::kLong);
  return at::tensor(values, at::kLong).narrow(0, 0, size).repeat_interleave(repeats).to(device);
}

// Ends of blocks of ids: 1, 2, 3, 4, 6, 8, 12, ... and the last.
std::vector<int64_t> block_ends(int64_t cardinality) {
  std::vector<int64_t> ends;
  for (int64_t power = 1; power < cardinality; power *= 2) {
    ends.push_back(power);
    if (power > 1 && power + power / 2 < cardinality) ends.push_back(power + power / 2);
  }
  ends.push_back(cardinality);
  return ends;
}

// Of the first `dim` coordinates.
Moments leading(const Moments& moments, int64_t dim) {
  return {moments.count(), moments.mean().narrow(0, 0, dim).clone(),
          moments.scatter().narrow(0, 0, dim).narrow(1, 0, dim).clone(), moments.skipped()};
}

at::Tensor mean_over(const at::Tensor& sum, double rows) {
  const at::Tensor mean = rows > 0.0 ? sum / rows : at::zeros_like(sum);
  return ((mean + mean.transpose(-2, -1)) * 0.5).cpu();
}

}  // namespace

std::unique_ptr<LayerRecorder> recorder_for(nn::Layer& layer, const CollectOptions& options) {
  if (!layer.is_dense()) return nullptr;
  if (auto* linear = dynamic_cast<nn::LinearImpl*>(&layer)) return std::make_unique<LinearRecorder>(*linear, options);
  if (auto* embedding = dynamic_cast<nn::EmbeddingImpl*>(&layer)) {
    return std::make_unique<EmbeddingRecorder>(*embedding, options);
  }
  return nullptr;
}

void LinearRecorder::attach() {
  layer_.set_output_hook([this](const at::Tensor& input, const at::Tensor& output) {
    if (options_.metric) edges_.add(output);
    const at::NoGradGuard no_grad;
    add(input.detach(), output.detach());
  });
}

void LinearRecorder::add(const at::Tensor& input, const at::Tensor& output) {
  if (output.numel() == 0) return;  // a batch without rows
  at::Tensor rows = output.reshape({-1, layer_.options.out_features});
  at::Tensor inputs = input.reshape({-1, layer_.options.in_features});
  const int64_t skipped = output_.skipped();
  output_.add(rows);
  if (output_.skipped() > skipped) {
    const at::Tensor kept = rows.isfinite().all(1).nonzero().squeeze(1);
    rows = rows.index_select(0, kept);
    inputs = inputs.index_select(0, kept);
  }
  if (rows.size(0) == 0) return;
  const at::Tensor sum = inputs.sum(0, /*keepdim=*/false, at::kDouble);
  input_sum_ = input_sum_.defined() ? input_sum_ + sum : sum;
  if (options_.input_moments) input_.add(inputs);
  add_radius(rows);
}

void LinearRecorder::add_radius(const at::Tensor& rows) {
  if (!centre_.defined()) {
    centre_ = output_.mean();
    radius_ = at::zeros({}, centre_.options());
  }
  // In pieces that stay in the cache; the slack keeps it an upper bound.
  const at::ScalarType type = rows.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor centre = centre_.to(type);
  for (const at::Tensor& piece : rows.split(rows.is_cpu() ? kRadiusRows : rows.size(0))) {
    const at::Tensor largest = (piece.to(type) - centre).norm(2, {1}).amax();
    radius_ = at::maximum(radius_, largest.to(at::kDouble) * kRadiusSlack);
  }
}

void LinearRecorder::add_gradients(const std::vector<at::Tensor>& gradients) {
  for (const at::Tensor& gradient : gradients) {
    if (gradient.defined()) add_outer(metric_, gradient.reshape({-1, layer_.options.out_features}));
  }
}

LayerStatistics LinearRecorder::finish(const std::string& layer, double rows) const {
  const auto skipped = static_cast<double>(output_.skipped());
  const std::string what = fmt::format("layer '{}'", layer);
  check_finite_share(what, skipped, skipped + output_.count());
  LayerStatistics statistics;
  statistics.in_features = layer_.options.in_features;
  statistics.out_features = layer_.options.out_features;
  statistics.bias = layer_.options.bias;
  statistics.output = {on_cpu(output_, what)};
  statistics.input_mean = at::zeros({statistics.in_features}, at::kDouble);
  if (options_.input_moments) {
    statistics.input = input_.dim() > 0 ? on_cpu(input_, "the input of " + what) : Moments(statistics.in_features);
  }
  if (options_.metric) {
    const at::Tensor none = at::zeros({statistics.out_features, statistics.out_features}, at::kDouble);
    statistics.metric = {mean_over(metric_.defined() ? metric_ : none, rows)};
  }
  if (output_.count() == 0.0) return statistics;
  statistics.input_mean = options_.input_moments ? statistics.input.mean() : (input_sum_ / output_.count()).cpu();
  // ||y - mean|| <= ||y - centre|| + ||centre - mean||
  statistics.radius = (radius_ + (centre_ - output_.mean()).norm()).item<double>();
  return statistics;
}

EmbeddingRecorder::EmbeddingRecorder(nn::EmbeddingImpl& layer, const CollectOptions& options)
    : layer_(layer),
      options_(options),
      slots_(layer.options.slots),
      row_starts_(starts_of(layer.options.cardinalities)) {
  if (slots_.empty()) slots_.assign(layer.options.cardinalities.size(), 1);
  slot_starts_ = starts_of(slots_);
  for (std::size_t j = 0; j < slots_.size(); ++j) pooled_.emplace_back(width(), layer_.weight.device());
}

void EmbeddingRecorder::attach() {
  layer_.set_lookup_hook([this](const at::Tensor& ids, const nn::EmbeddingOutput& output) {
    if (options_.metric) {
      edges_.add(output.values);
      if (output.wide.defined()) edges_.add(output.wide);
      pending_ids_.push_back(ids);
    }
    const at::NoGradGuard no_grad;
    add(ids, output.values.detach());
  });
}

void EmbeddingRecorder::add(const at::Tensor& input, const at::Tensor& values) {
  if (input.numel() == 0) return;
  const at::Tensor ids = input.reshape({-1, slot_starts_.back()});
  count_ids(ids);
  add_pooled(ids, values);
}

void EmbeddingRecorder::count_ids(const at::Tensor& ids) {
  const at::Tensor start = per_slot(row_starts_, slots_, ids.device());
  const at::Tensor largest = per_slot(layer_.options.cardinalities, slots_, ids.device()) - 1;
  // Ids are clamped as the layer does where its range check is off.
  const at::Tensor rows = at::minimum(ids.clamp_min(0).to(at::kLong), largest) + start;
  const at::Tensor index = at::where(ids.eq(kEmptySlot), row_starts_.back(), rows).flatten();
  if (!counts_.defined()) counts_ = at::zeros({row_starts_.back() + 1}, index.options());
  counts_.index_add_(0, index, at::ones_like(index));
}

bool EmbeddingRecorder::may_be_empty(std::size_t field) const {
  const std::vector<bool>& multi = layer_.options.multi_valued;
  return multi.empty() ? slots_[field] > 1 : multi[field];
}

at::Tensor EmbeddingRecorder::filled(const at::Tensor& ids, std::size_t field) const {
  return ids.narrow(1, slot_starts_[field], slots_[field]).ne(kEmptySlot).any(1);
}

void EmbeddingRecorder::add_pooled(const at::Tensor& ids, const at::Tensor& values) {
  for (std::size_t j = 0; j < slots_.size(); ++j) {
    if (slots_[j] == 1) continue;
    const at::Tensor rows = filled(ids, j);
    at::Tensor pooled = values.select(1, static_cast<int64_t>(j)).index({rows});
    if (layer_.options.wide) {
      const at::Tensor own = ids.narrow(1, slot_starts_[j], slots_[j]).index({rows}), used = own.ne(kEmptySlot);
      const at::Tensor index = own.clamp(0, layer_.options.cardinalities[j] - 1).to(at::kLong);
      const at::Tensor weights = table(j).select(1, layer_.options.embedding_dim).index({index}) * used;
      pooled = at::cat({pooled, (weights.sum(1) / used.sum(1)).unsqueeze(1).to(pooled.scalar_type())}, 1);
    }
    pooled_[j].add(pooled);
  }
}

// The wide weights of all fields have one gradient.
void EmbeddingRecorder::add_gradients(const std::vector<at::Tensor>& gradients) {
  const std::size_t per_lookup = layer_.options.wide ? 2 : 1;
  for (std::size_t use = 0; use < pending_ids_.size(); ++use) {
    const at::Tensor &ids = pending_ids_[use], &values = gradients[use * per_lookup];
    const at::Tensor wide = per_lookup == 2 ? gradients[use * per_lookup + 1] : at::Tensor();
    if (ids.numel() == 0 || !(values.defined() || wide.defined())) continue;
    const auto fields = static_cast<int64_t>(slots_.size());
    at::Tensor g = at::zeros({fields, ids.size(0), width()}, layer_.weight.options().dtype(at::kDouble));
    if (values.defined()) g.narrow(2, 0, layer_.options.embedding_dim).copy_(values.transpose(0, 1));
    if (wide.defined()) g.select(2, layer_.options.embedding_dim).copy_(wide.expand({fields, ids.size(0)}));
    for (std::size_t j = 0; j < slots_.size(); ++j) {
      if (may_be_empty(j)) g[static_cast<int64_t>(j)].mul_(filled(ids, j).unsqueeze(1));
    }
    add_outer(metric_, g);
  }
  pending_ids_.clear();
}

at::Tensor EmbeddingRecorder::table(std::size_t field) const {
  return layer_.weight.detach().narrow(0, row_starts_[field], layer_.options.cardinalities[field]);
}

std::vector<IdBlock> EmbeddingRecorder::blocks_of(std::size_t field, const at::Tensor& counts,
                                                  const std::string& what) const {
  const at::Tensor rows = table(field);
  const int64_t head = std::min(rows.size(0), kHeadRows);
  const at::Tensor head_rows = rows.narrow(0, 0, head).cpu(), head_counts = counts.narrow(0, 0, head).cpu();
  std::vector<IdBlock> blocks;
  int64_t begin = 0;
  for (const int64_t end : block_ends(rows.size(0))) {
    const at::Tensor &from = end <= head ? head_rows : rows, &weights = end <= head ? head_counts : counts;
    Moments moments(width(), from.device());
    moments.add_weighted(from.narrow(0, begin, end - begin), weights.narrow(0, begin, end - begin));
    blocks.push_back({begin, end, on_cpu(moments, what)});
    begin = end;
  }
  return blocks;
}

LayerStatistics EmbeddingRecorder::finish(const std::string& layer, double rows) const {
  const nn::EmbeddingOptions& options = layer_.options;
  LayerStatistics statistics;
  statistics.is_embedding = true;
  statistics.cardinalities = options.cardinalities;
  statistics.embedding_dim = options.embedding_dim;
  statistics.wide = options.wide;
  const at::Tensor counts = counts_.to(at::kDouble), counts_on_cpu = counts.cpu();
  for (std::size_t j = 0; j < slots_.size(); ++j) {
    const int64_t first = row_starts_[j], size = options.cardinalities[j];
    const at::Tensor count = counts_on_cpu.narrow(0, first, size);
    const std::string name = options.names.empty() ? std::to_string(j) : options.names[j];
    const std::string what = fmt::format("field '{}' of layer '{}'", name, layer);
    statistics.id_blocks.push_back(blocks_of(j, counts.narrow(0, first, size), what));
    Moments moments = on_cpu(pooled_[j], what);
    double looked_up = moments.count() + static_cast<double>(moments.skipped());
    if (slots_[j] == 1) {
      for (const IdBlock& block : statistics.id_blocks.back()) moments.merge(block.rows);
      looked_up = count.sum().item<double>();
    }
    check_finite_share(what, looked_up - moments.count(), looked_up);
    statistics.id_counts.push_back(count);
    statistics.output.push_back(leading(moments, options.embedding_dim));
    if (options.wide) statistics.joint.push_back(moments);
    if (!options_.metric) continue;
    const at::Tensor none = at::zeros({width(), width()}, at::kDouble);
    statistics.metric.push_back(mean_over(metric_.defined() ? metric_[static_cast<int64_t>(j)] : none, rows));
  }
  return statistics;
}

}  // namespace afm
