#include "libafm/compress/statistics_recorder.h"

#include <numeric>

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/data/batch.h"

namespace afm {
namespace {

constexpr double kAllowedShare = 1e-3;  // of rows that are not finite
constexpr int64_t kRadiusRows = 512;
constexpr double kRadiusSlack = 1.0 + 1e-4;  // above any rounding of a float32 norm

void check_finite_share(const std::string& what, double lost, double rows) {
  if (lost > kAllowedShare * rows) {
    fail<DataError>("{} has {:.0f} of {:.0f} outputs that are not finite, at most 1 in 1000 may be", what, lost, rows);
  }
}

Moments on_cpu(const Moments& moments) {
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

}  // namespace

std::unique_ptr<LayerRecorder> recorder_for(nn::Layer& layer) {
  if (!layer.is_dense()) return nullptr;
  if (const auto* linear = dynamic_cast<nn::LinearImpl*>(&layer)) return std::make_unique<LinearRecorder>(*linear);
  if (const auto* embedding = dynamic_cast<nn::EmbeddingImpl*>(&layer)) {
    return std::make_unique<EmbeddingRecorder>(*embedding);
  }
  return nullptr;
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
  for (const at::Tensor& piece : rows.split(kRadiusRows)) {
    const at::Tensor largest = (piece.to(type) - centre).norm(2, {1}).amax();
    radius_ = at::maximum(radius_, largest.to(at::kDouble) * kRadiusSlack);
  }
}

LayerStatistics LinearRecorder::finish(const std::string& layer) const {
  const auto skipped = static_cast<double>(output_.skipped());
  check_finite_share(fmt::format("layer '{}'", layer), skipped, skipped + output_.count());
  LayerStatistics statistics;
  statistics.in_features = layer_.options.in_features;
  statistics.out_features = layer_.options.out_features;
  statistics.bias = layer_.options.bias;
  statistics.output = {on_cpu(output_)};
  statistics.input_mean = at::zeros({statistics.in_features}, at::kDouble);
  if (output_.count() == 0.0) return statistics;
  statistics.input_mean = (input_sum_ / output_.count()).cpu();
  // ||y - mean|| <= ||y - centre|| + ||centre - mean||
  statistics.radius = (radius_ + (centre_ - output_.mean()).norm()).item<double>();
  return statistics;
}

EmbeddingRecorder::EmbeddingRecorder(const nn::EmbeddingImpl& layer)
    : layer_(layer), slots_(layer.options.slots), row_starts_(starts_of(layer.options.cardinalities)) {
  if (slots_.empty()) slots_.assign(layer.options.cardinalities.size(), 1);
  slot_starts_ = starts_of(slots_);
  for (std::size_t j = 0; j < slots_.size(); ++j) pooled_.emplace_back(layer.options.embedding_dim);
}

void EmbeddingRecorder::add(const at::Tensor& input, const at::Tensor& output) {
  if (input.numel() == 0) return;
  const at::Tensor ids = input.reshape({-1, slot_starts_.back()});
  count_ids(ids);
  add_pooled(ids, output.reshape({ids.size(0), -1, layer_.options.embedding_dim}));
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

void EmbeddingRecorder::add_pooled(const at::Tensor& ids, const at::Tensor& values) {
  for (std::size_t j = 0; j < slots_.size(); ++j) {
    if (slots_[j] == 1) continue;
    const at::Tensor filled = ids.narrow(1, slot_starts_[j], slots_[j]).ne(kEmptySlot).any(1);
    pooled_[j].add(values.select(1, static_cast<int64_t>(j)).index({filled}));
  }
}

Moments EmbeddingRecorder::table_moments(int64_t field, const at::Tensor& counts) const {
  const auto j = static_cast<std::size_t>(field);
  Moments moments(layer_.options.embedding_dim);
  moments.add_weighted(layer_.weight.detach()
                           .narrow(0, row_starts_[j], layer_.options.cardinalities[j])
                           .narrow(1, 0, layer_.options.embedding_dim),
                       counts);
  return moments;
}

LayerStatistics EmbeddingRecorder::finish(const std::string& layer) const {
  const nn::EmbeddingOptions& options = layer_.options;
  LayerStatistics statistics;
  statistics.is_embedding = true;
  statistics.cardinalities = options.cardinalities;
  statistics.embedding_dim = options.embedding_dim;
  statistics.wide = options.wide;
  const at::Tensor counts = counts_.cpu().to(at::kDouble);
  for (std::size_t j = 0; j < slots_.size(); ++j) {
    const at::Tensor count = counts.narrow(0, row_starts_[j], options.cardinalities[j]).clone();
    const bool pooled = slots_[j] > 1;
    const Moments moments = pooled ? pooled_[j] : table_moments(static_cast<int64_t>(j), count);
    const double rows = pooled ? moments.count() + static_cast<double>(moments.skipped()) : count.sum().item<double>();
    const std::string name = options.names.empty() ? std::to_string(j) : options.names[j];
    check_finite_share(fmt::format("field '{}' of layer '{}'", name, layer), rows - moments.count(), rows);
    statistics.id_counts.push_back(count);
    statistics.output.push_back(on_cpu(moments));
  }
  return statistics;
}

}  // namespace afm
