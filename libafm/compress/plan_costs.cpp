#include "libafm/compress/plan_costs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <ATen/ATen.h>

#include "libafm/compress/layer_ranks.h"

namespace afm {
namespace {

constexpr double kScaleBytes = 2.0;     // a bfloat16
constexpr double kMeanRounding = 1e-4;  // of means of float32 values, as a share of their size

double code_bytes(Bits bits, double elements, double float_bytes) {
  switch (bits) {
    case Bits::kInt8:
      return elements;
    case Bits::kInt4:
      return elements / 2.0;
    default:
      return elements * float_bytes;
  }
}

Size floats(double count, const StorageRules& rules) { return {count, count * rules.float_bytes, 0.0}; }

// A matrix with its scales; each is a tensor of its own, so int4 fills its last byte.
Size matrix_size(double rows, double columns, const LayerPlan& form, const StorageRules& rules) {
  const double elements = rows * columns;
  if (form.bits == Bits::kFloat) return {elements, elements * rules.float_bytes, elements};
  const double scales = elements == 0.0 ? 0.0 : form.scale == ScaleBy::kRow ? rows : columns;
  return {elements, std::ceil(code_bytes(form.bits, elements, rules.float_bytes)) + kScaleBytes * scales, elements};
}

Size dense_table_size(const LayerStatistics& layer, const LayerPlan& form, const StorageRules& rules) {
  const auto fields = static_cast<double>(layer.cardinalities.size()), dim = static_cast<double>(layer.embedding_dim);
  const auto rows =
      static_cast<double>(std::accumulate(layer.cardinalities.begin(), layer.cardinalities.end(), int64_t{0}));
  const double elements = rows * (dim + (layer.wide ? 1.0 : 0.0));
  Size size = {elements, code_bytes(form.bits, elements, rules.float_bytes), 0.0};
  if (form.bits == Bits::kFloat) return size;
  const double scales = (form.scale == ScaleBy::kRow ? rows : fields * dim) + (layer.wide ? fields : 0.0);
  size.bytes += kScaleBytes * scales;
  return size;
}

double latent_width(const LayerStatistics& layer, const LayerPlan& form) {
  return static_cast<double>(layer.embedding_dim + (layer.wide && form.joint ? 1 : 0));
}

}  // namespace

bool has_wide_column(const LayerStatistics& layer, const LayerPlan& form) { return layer.wide && !form.joint; }

Size& Size::operator+=(const Size& other) {
  parameters += other.parameters;
  bytes += other.bytes;
  macs += other.macs;
  return *this;
}

StorageRules storage_rules(const Statistics& statistics, const PlanOptions& options) {
  const double parameters = static_cast<double>(std::max<int64_t>(statistics.parameters, 1));
  return {static_cast<double>(statistics.parameter_bytes) / parameters, options.fold, options.keep_basis};
}

StorageRules rules_for(const LayerPlan& table, StorageRules rules) {
  rules.fold |= table.basis == Basis::kNone && !table.ranks.empty();
  return rules;
}

Size linear_size(const LayerStatistics& layer, const LayerPlan& plan, double inputs, const StorageRules& rules) {
  const auto outputs = static_cast<double>(layer.out_features);
  if (plan.ranks.empty()) {
    return matrix_size(outputs, inputs, plan, rules) + floats(layer.bias ? outputs : 0.0, rules);
  }
  const auto rank = static_cast<double>(plan.ranks[0]);
  return matrix_size(rank, inputs, plan, rules) + matrix_size(outputs, rank, plan, rules) +
         floats(rank + outputs, rules);
}

Size tier_size(const LayerStatistics& layer, const LayerPlan& form, const Tier& tier, const StorageRules& rules) {
  const double rows = tier.shared ? 1.0 : static_cast<double>(tier.rows);
  const double elements = rows * static_cast<double>(tier.rank + (has_wide_column(layer, form) ? 1 : 0));
  const bool row_scales = form.bits != Bits::kFloat && form.scale == ScaleBy::kRow && tier.rank > 0;
  return {elements, code_bytes(form.bits, elements, rules.float_bytes) + (row_scales ? kScaleBytes * rows : 0.0), 0.0};
}

Size coordinate_size(const LayerStatistics& layer, const LayerPlan& form, const StorageRules& rules) {
  const bool scale = form.bits != Bits::kFloat && form.scale == ScaleBy::kColumn;
  const double width = latent_width(layer, form), dim = static_cast<double>(layer.embedding_dim);
  const bool shared = form.basis == Basis::kShared;
  double stored = shared ? 0.0 : width, macs = width;
  if (rules.fold) {
    const double vector = rules.keep_basis || (layer.wide && form.joint) ? 1.0 : 0.0;
    stored = macs = vector + (rules.keep_basis && !shared ? dim : 0.0);
  }
  return floats(stored, rules) + Size{0.0, scale ? kScaleBytes : 0.0, macs};
}

Size field_base_size(const LayerStatistics& layer, const LayerPlan& form, const StorageRules& rules) {
  const bool wide_scale = form.bits != Bits::kFloat && has_wide_column(layer, form);
  return floats(rules.fold ? 0.0 : latent_width(layer, form), rules) + Size{0.0, wide_scale ? kScaleBytes : 0.0, 0.0};
}

Size field_size(const LayerStatistics& layer, const LayerPlan& form, std::size_t field, int64_t rank,
                const std::vector<Tier>& tiers, const StorageRules& rules) {
  Size size = field_base_size(layer, form, rules) + static_cast<double>(rank) * coordinate_size(layer, form, rules);
  if (tiers.empty()) return size + tier_size(layer, form, {.rows = layer.cardinalities[field], .rank = rank}, rules);
  for (const Tier& tier : tiers) size += tier_size(layer, form, tier, rules);
  return size;
}

Size shared_basis_size(const LayerStatistics& layer, const LayerPlan& plan, const StorageRules& rules) {
  if (plan.basis != Basis::kShared || rules.fold) return {};
  return floats(static_cast<double>(std::ranges::max(plan.ranks) * layer.embedding_dim), rules);
}

Size table_size(const LayerStatistics& layer, const LayerPlan& plan, const StorageRules& given) {
  const StorageRules rules = rules_for(plan, given);
  Size size = plan.ranks.empty() ? dense_table_size(layer, plan, rules) : shared_basis_size(layer, plan, rules);
  for (std::size_t j = 0; j < plan.ranks.size(); ++j) {
    size += field_size(layer, plan, j, plan.ranks[j], plan.tiers.empty() ? std::vector<Tier>() : plan.tiers[j], rules);
  }
  size.bytes = std::ceil(size.bytes);
  return size;
}

Size layer_size(const LayerStatistics& layer, const LayerPlan& plan, const StorageRules& rules) {
  if (layer.is_embedding) return table_size(layer, plan, rules);
  return linear_size(layer, plan, static_cast<double>(layer.in_features), rules);
}

Size dense_size(const Statistics& statistics) {
  Size size = {static_cast<double>(statistics.parameters), static_cast<double>(statistics.bytes), 0.0};
  for (const auto& [path, layer] : statistics.layers) size.macs += layer_size(layer, {}, {}).macs;
  return size;
}

// 2 L vectors [n] become L vectors and, with the constants of the head, 2 (L + 1) numbers. A head that reads nothing
// else has its bias among these.
Size folded_cross_change(const Statistics& statistics, const LayerStatistics& embedding, const PlanOptions& options,
                         double width, const StorageRules& rules) {
  if (options.cross_layers == 0) return {};
  const auto layers = static_cast<double>(options.cross_layers);
  const double expanded = static_cast<double>(rank_count(embedding) * embedding.embedding_dim);
  double inputs = std::numeric_limits<double>::infinity(), biases = 0.0;
  const std::vector<std::string> readers = first_layers_of(statistics, embedding, options);
  for (const std::string& path : readers) {
    inputs = std::min(inputs, static_cast<double>(statistics.layers.at(path).in_features));
  }
  for (const std::string& path : readers) {
    const LayerStatistics& layer = statistics.layers.at(path);
    if (layer.out_features == 1 && static_cast<double>(layer.in_features) == inputs) biases += layer.bias ? 1.0 : 0.0;
  }
  if (readers.empty()) inputs = expanded;
  const double after = layers * (inputs - expanded + width) + 2.0 * (layers + 1.0) - biases;
  return floats(after - 2.0 * layers * inputs, rules);
}

std::vector<std::string> first_layers_of(const Statistics& statistics, const LayerStatistics& embedding,
                                         const PlanOptions& options) {
  if (!options.first_layers.empty()) return options.first_layers;
  std::vector<at::Tensor> means, spreads;
  for (int64_t j = 0; j < rank_count(embedding); ++j) {
    const Moments& output = embedding.output[static_cast<std::size_t>(j)];
    means.push_back(output.mean() * share_of_rows(embedding, j));
    spreads.push_back(output.covariance().diagonal().sqrt());
  }
  const at::Tensor mean = at::cat(means), rounding = (at::cat(spreads) + mean.abs()) * kMeanRounding;
  std::vector<std::string> found;
  for (const auto& [path, layer] : statistics.layers) {
    if (layer.is_embedding || layer.in_features < mean.size(0)) continue;
    const at::Tensor inputs = layer.input_mean.narrow(0, 0, mean.size(0));
    if ((inputs - mean).abs().le(rounding).all().item<bool>()) found.push_back(path);
  }
  return found;
}

}  // namespace afm
