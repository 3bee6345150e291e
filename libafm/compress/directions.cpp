#include "libafm/compress/directions.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>

#include "libafm/core/fail.h"
#include "libafm/linalg/factors.h"
#include "libafm/nn/parallel.h"

namespace afm {
namespace {

std::vector<double> as_vector(const at::Tensor& values) {
  const auto* data = values.const_data_ptr<double>();
  return {data, data + values.numel()};
}

double trace_of(const at::Tensor& matrix) { return matrix.diagonal().sum().item<double>(); }

// The Gauss-Newton matrix of one output; the wide weight is left out where it keeps a storage of its own.
at::Tensor gauss_newton_of(const LayerStatistics& layer, std::size_t output, bool joint) {
  if (layer.metric.size() <= output) {
    fail<std::invalid_argument>("the statistics must hold a metric (CollectOptions.metric), they hold none");
  }
  const at::Tensor& matrix = layer.metric[output];
  if (!layer.is_embedding || joint) return matrix;
  return matrix.narrow(0, 0, layer.embedding_dim).narrow(1, 0, layer.embedding_dim);
}

Directions own_directions(const LayerStatistics& layer, std::size_t output, const DirectionOptions& options) {
  const Moments& moments = moments_of(layer, options.joint)[output];
  const OutputMetric metric = options.metric
                                  ? output_metric(gauss_newton_of(layer, output, options.joint), options.metric_eps)
                                  : OutputMetric();
  Spectrum spectrum = spectrum_in(metric, moments.covariance());
  std::vector<double> variance = as_vector(spectrum.values);
  return {std::move(spectrum), std::move(variance), metric};
}

std::vector<double> variance_along(const Moments& output, const Spectrum& spectrum) {
  return as_vector(at::mm(output.covariance(), spectrum.vectors).mul_(spectrum.vectors).sum(0).clamp_min_(0.0));
}

// The error of a field at every rank 0 .. D of a basis that was not made for its covariance and metric alone, as what
// each direction adds.
std::vector<double> losses_along(const Moments& output, const at::Tensor& metric, const Directions& pooled) {
  const int64_t dim = output.dim();
  const at::Tensor covariance = output.covariance(), unit = at::eye(dim, at::kDouble);
  const auto error_at = [&](int64_t k) {
    const at::Tensor kept = pooled.spectrum.vectors.narrow(1, 0, k);
    const at::Tensor lost = unit - at::mm(at::mm(pooled.metric.inverse, kept), at::mm(kept.t(), pooled.metric.root));
    return trace_of(at::mm(at::mm(metric, lost), at::mm(covariance, lost.t())));
  };
  std::vector<double> losses;
  double left = error_at(0);
  for (int64_t k = 1; k <= dim; ++k) {
    const double next = k == dim ? 0.0 : std::clamp(error_at(k), 0.0, left);
    losses.push_back(left - next);
    left = next;
  }
  return losses;
}

std::vector<Directions> shared_directions(const LayerStatistics& layer) {
  at::Tensor pooled = at::zeros({layer.embedding_dim, layer.embedding_dim}, at::kDouble);
  for (std::size_t j = 0; j < layer.output.size(); ++j) {
    pooled += layer.output[j].covariance() * share_of_rows(layer, static_cast<int64_t>(j));
  }
  const Spectrum spectrum = spectrum_of(pooled);
  std::vector<Directions> directions;
  for (const Moments& output : layer.output) directions.push_back({spectrum, variance_along(output, spectrum)});
  return directions;
}

std::vector<Directions> shared_directions_in_metric(const LayerStatistics& layer, double eps) {
  const auto fields = static_cast<double>(layer.output.size());
  at::Tensor mean = at::zeros({layer.embedding_dim, layer.embedding_dim}, at::kDouble), pooled = mean.clone();
  for (std::size_t j = 0; j < layer.output.size(); ++j) mean += gauss_newton_of(layer, j, false) / fields;
  const double mean_trace = trace_of(mean);
  for (std::size_t j = 0; j < layer.output.size(); ++j) {
    const double weight = mean_trace > 0.0 ? trace_of(gauss_newton_of(layer, j, false)) / mean_trace : 1.0;
    pooled += layer.output[j].covariance() * weight;
  }
  Directions shared{{}, {}, output_metric(mean, eps)};
  shared.spectrum = spectrum_in(shared.metric, pooled);
  std::vector<Directions> directions;
  for (std::size_t j = 0; j < layer.output.size(); ++j) {
    const at::Tensor own = output_metric(gauss_newton_of(layer, j, false), eps).squared();
    directions.push_back({shared.spectrum, losses_along(layer.output[j], own, shared), shared.metric});
  }
  return directions;
}

}  // namespace

double Directions::discarded(int64_t k) const {
  return std::accumulate(variance.rbegin(), variance.rend() - k, 0.0);  // the smallest first
}

std::vector<Directions> output_directions(const LayerStatistics& layer, const DirectionOptions& options) {
  if (layer.is_embedding && options.basis == Basis::kShared) {
    return options.metric ? shared_directions_in_metric(layer, options.metric_eps) : shared_directions(layer);
  }
  std::vector<Directions> directions(layer.output.size());
  nn::parallel_for_each(static_cast<int64_t>(directions.size()), [&](int64_t i) {
    const auto output = static_cast<std::size_t>(i);
    directions[output] = own_directions(layer, output, options);
  });
  return directions;
}

double share_of_rows(const LayerStatistics& layer, int64_t field) {
  double most = 0.0;
  for (const Moments& output : layer.output) most = std::max(most, output.count());
  return most == 0.0 ? 0.0 : layer.output[static_cast<std::size_t>(field)].count() / most;
}

const std::vector<Moments>& moments_of(const LayerStatistics& layer, bool joint) {
  if (!joint) return layer.output;
  if (layer.joint.empty()) {
    fail<std::invalid_argument>(
        "the statistics must hold moments of the embedding with its wide weights, they hold "
        "none");
  }
  return layer.joint;
}

}  // namespace afm
