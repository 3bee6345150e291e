#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "libafm/compress/comparison.h"
#include "libafm/compress/factorize.h"
#include "libafm/compress/predicted_change.h"
#include "libafm/compress/statistics.h"
#include "libafm/core/fail.h"
#include "python/src/arguments.h"
#include "python/src/bind_record.h"
#include "python/src/bindings.h"
#include "python/src/rank_plans.h"

namespace afm::python {
namespace {

NextLogits interruptible(NextLogits next) {
  return [next = std::move(next)] {
    check_signals();
    return next();
  };
}

Statistics statistics_by_calls(Model& model, const py::object& next_logits, bool whole_training_set, bool metric,
                               bool input_moments) {
  const auto next = interruptible([&next_logits]() -> std::optional<at::Tensor> {
    const py::gil_scoped_acquire lock;
    return next_logits().cast<std::optional<at::Tensor>>();
  });
  const py::gil_scoped_release unlocked;
  return collect_statistics(
      model, next, {.whole_training_set = whole_training_set, .metric = metric, .input_moments = input_moments});
}

Statistics statistics_on(Model& model, const Dataset& dataset, int64_t max_rows, int64_t batch_size,
                         bool whole_training_set, bool metric, bool input_moments) {
  const py::gil_scoped_release unlocked;
  return collect_statistics(
      model, interruptible(logits_of(model, dataset, max_rows, batch_size)),
      {.whole_training_set = whole_training_set, .metric = metric, .input_moments = input_moments});
}

// What a walker over another library's model measured (afm.compress).
LayerStatistics measured_layer(bool is_embedding, int64_t in_features, int64_t out_features, bool bias,
                               std::optional<at::Tensor> input_mean, std::vector<int64_t> cardinalities,
                               int64_t embedding_dim, bool wide, std::vector<at::Tensor> id_counts,
                               std::vector<Moments> output, double radius) {
  const std::size_t outputs = is_embedding ? cardinalities.size() : 1;
  if (output.size() != outputs) {
    fail<std::invalid_argument>("LayerStatistics.output must hold {} moments, got {}", outputs, output.size());
  }
  const int64_t dim = is_embedding ? embedding_dim : out_features;
  for (Moments& moments : output) {
    if (moments.dim() != dim) {
      fail<std::invalid_argument>("LayerStatistics.output must be of dimension {}, got {}", dim, moments.dim());
    }
    moments = Moments(moments.count(), moments.mean().cpu(), moments.scatter().cpu(), moments.skipped());
  }
  return {.is_embedding = is_embedding,
          .in_features = in_features,
          .out_features = out_features,
          .bias = bias,
          .input_mean = input_mean.value_or(at::Tensor()),
          .input = {},
          .cardinalities = std::move(cardinalities),
          .embedding_dim = embedding_dim,
          .wide = wide,
          .id_counts = std::move(id_counts),
          .output = std::move(output),
          .joint = {},
          .id_blocks = {},
          .metric = {},
          .radius = radius};
}

Statistics measured_model(std::map<std::string, LayerStatistics> layers, int64_t rows, int64_t parameters,
                          int64_t parameter_bytes, int64_t bytes, std::vector<std::string> unreached,
                          bool whole_training_set) {
  return {.layers = std::move(layers),
          .unreached = std::move(unreached),
          .rows = rows,
          .whole_training_set = whole_training_set,
          .parameters = parameters,
          .parameter_bytes = parameter_bytes,
          .bytes = bytes};
}

void bind_statistics(py::module_& m) {
  bind_record<LayerStatistics>(
      m, "LayerStatistics", "What the outputs of one layer look like on calibration data.",
      entry("is_embedding", &LayerStatistics::is_embedding), entry("in_features", &LayerStatistics::in_features),
      entry("out_features", &LayerStatistics::out_features), entry("bias", &LayerStatistics::bias),
      entry("cardinalities", &LayerStatistics::cardinalities), entry("embedding_dim", &LayerStatistics::embedding_dim),
      entry("wide", &LayerStatistics::wide), entry("radius", &LayerStatistics::radius))
      .def(py::init(&measured_layer), py::kw_only(), "is_embedding"_a = false, "in_features"_a = 0,
           "out_features"_a = 0, "bias"_a = true, "input_mean"_a = py::none(),
           "cardinalities"_a = std::vector<int64_t>(), "embedding_dim"_a = 0, "wide"_a = false,
           "id_counts"_a = std::vector<at::Tensor>(), "output"_a = std::vector<Moments>(), "radius"_a = 0.0)
      .def_property_readonly("input_mean", [](const LayerStatistics& self) { return defined(self.input_mean); })
      .def_readonly("id_counts", &LayerStatistics::id_counts)
      .def_readonly("output", &LayerStatistics::output,
                    "Moments: one for a linear layer, one per field of an embedding.")
      .def("parameters", &LayerStatistics::parameters, "Of the dense layer.");
  py::class_<Statistics>(m, "Statistics", "All that ranks and factors are computed from.")
      .def(py::init(&measured_model), "layers"_a, py::kw_only(), "rows"_a, "parameters"_a, "parameter_bytes"_a,
           "bytes"_a, "unreached"_a = std::vector<std::string>(), "whole_training_set"_a = false)
      .def_readonly("layers", &Statistics::layers, "By module path.")
      .def_readonly("unreached", &Statistics::unreached, "Dense layers that no batch went through.")
      .def_readonly("rows", &Statistics::rows)
      .def_readonly("whole_training_set", &Statistics::whole_training_set)
      .def_readonly("parameters", &Statistics::parameters, "Of the whole model.")
      .def_readonly("parameter_bytes", &Statistics::parameter_bytes, "Of the whole model, without buffers.")
      .def_readonly("bytes", &Statistics::bytes, "Of the whole model.")
      .def_property_readonly(
          "has_metric",
          [](const Statistics& self) {
            return std::ranges::any_of(self.layers, [](const auto& item) { return !item.second.metric.empty(); });
          },
          "Whether a loss-weighted plan can be made from them.")
      .def("save", &Statistics::save, "path"_a, ReleaseGil())
      .def_static("load", &Statistics::load, "path"_a, ReleaseGil())
      .def("__repr__", [](const Statistics& self) {
        return fmt::format("<afm.Statistics rows={} layers={}>", self.rows, self.layers.size());
      });
  m.def("collect_statistics", &statistics_by_calls, "model"_a, "next_logits"_a, "whole_training_set"_a, "metric"_a,
        "input_moments"_a);
  m.def("collect_statistics", &statistics_on, "model"_a, "dataset"_a, "max_rows"_a, "batch_size"_a,
        "whole_training_set"_a, "metric"_a, "input_moments"_a);
}

void bind_comparison(py::module_& m) {
  bind_record<ModelReport>(m, "ModelReport", "Quality, size and speed of one model.",
                           entry("metrics", &ModelReport::metrics), entry("parameters", &ModelReport::parameters),
                           entry("bytes", &ModelReport::bytes),
                           entry("microseconds_per_row", &ModelReport::microseconds_per_row));
  bind_record<Comparison>(m, "Comparison", "What compression did, on the same rows.",
                          entry("before", &Comparison::before), entry("after", &Comparison::after),
                          entry("mean_absolute_difference", &Comparison::mean_absolute_difference),
                          entry("mean_kl", &Comparison::mean_kl), entry("flipped", &Comparison::flipped))
      .def("to_json", &comparison_to_json)
      .def("to_markdown", &comparison_to_markdown);
  m.def("report_on", &report_on, "model"_a, "dataset"_a, ReleaseGil());
  m.def("compare", &compare, "before"_a, "after"_a, "dataset"_a, ReleaseGil());
  m.def("mean_kl", &mean_kl, "before"_a, "after"_a, "dataset"_a, "max_rows"_a, ReleaseGil());
}

void bind_change(py::module_& m) {
  bind_record<PredictedChange>(m, "PredictedChange",
                               "What another form of a model's layers does to the logloss, to second order.",
                               entry("layers", &PredictedChange::layers), entry("together", &PredictedChange::together),
                               entry("measured", &PredictedChange::measured), entry("rows", &PredictedChange::rows))
      .def("sum", &PredictedChange::sum, "Of the layers, one by one.");
  m.def(
      "predicted_change",
      [](Model& before, Model& after, const Dataset& dataset, int64_t max_rows) {
        return predicted_change(before, interruptible(logits_of(before, dataset, max_rows)), after,
                                interruptible(logits_of(after, dataset, max_rows)));
      },
      "before"_a, "after"_a, "dataset"_a, "max_rows"_a, ReleaseGil());
  m.def(
      "with_bits", [](const Model& model, const std::string& plan) { return with_bits(model, plan_of_text(plan)); },
      "model"_a, "plan"_a, ReleaseGil());
}

}  // namespace

void bind_compress(py::module_& m) {
  bind_statistics(m);
  bind_plan(m);
  m.def(
      "factorize",
      [](const Model& model, const Statistics& statistics, const std::string& plan, const std::string& method) {
        const auto wanted = enum_of<FactorMethod>(method, "method");
        const RankPlan ranks = plan_of_text(plan);
        const py::gil_scoped_release unlocked;
        return factorize(model, statistics, ranks, wanted);
      },
      "model"_a, "statistics"_a, "plan"_a, "method"_a);
  bind_comparison(m);
  bind_change(m);
  bind_fold(m);
}

}  // namespace afm::python
