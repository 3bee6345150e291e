#include <optional>
#include <string>

#include "libafm/compress/plan.h"
#include "python/src/arguments.h"
#include "python/src/bind_record.h"
#include "python/src/bindings.h"
#include "python/src/rank_plans.h"

namespace afm::python {
namespace {

template <typename Value>
void take_option(const py::handle& from, Value& to, const std::string& name) {
  if constexpr (NamedEnum<Value>) {
    to = enum_of<Value>(from.cast<std::string>(), name);
  } else {
    try {
      to = from.cast<Value>();
    } catch (const py::cast_error&) {
      throw py::type_error(
          fmt::format("plan_ranks: {} has the wrong type: {}", name, py::repr(from).cast<std::string>()));
    }
  }
}

// Keywords that are None stand for the default.
PlanOptions plan_options(const py::kwargs& keywords) {
  PlanOptions options;
  const auto take = [&keywords](const char* name, auto& target) {
    if (keywords.contains(name) && !keywords[name].is_none()) take_option(keywords[name], target, name);
  };
  take("ratio", options.ratio);
  take("bytes", options.bytes);
  take("macs", options.macs);
  take("predicted_logloss", options.predicted_logloss);
  take("energy", options.energy);
  take("policy", options.policy);
  take("basis", options.basis);
  take("activation", options.activation);
  take("skip", options.skip);
  take("joint", options.joint);
  take("tiers", options.tiers);
  take("embedding_bits", options.embedding_bits);
  take("mlp_bits", options.mlp_bits);
  take("embedding_scale", options.embedding_scale);
  take("mlp_scale", options.mlp_scale);
  take("fold", options.fold);
  take("keep_basis", options.keep_basis);
  take("cross_layers", options.cross_layers);
  take("first_layers", options.first_layers);
  take("units", options.units);
  take("metric_eps", options.metric_eps);
  return options;
}

void bind_plan_records(py::module_& m) {
  bind_record<LayerSummary>(m, "LayerSummary", R"(What a plan does to one layer, or to one field of an embedding.

field is -1 for a linear layer; rows x columns are outputs x inputs, or ids x width; rank is the full one where `dense`.
kept_energy is the kept share of the output's variance, in [0, 1]; predicted_mse the mean squared distance of the
outputs; predicted_logloss the rise of the logloss, 0 where the statistics have no metric. Predictions are of method
"mimic" on the calibration rows, each layer given its original input. Parameters include wide weights.)",
                            entry("layer", &LayerSummary::layer), entry("field", &LayerSummary::field),
                            entry("rows", &LayerSummary::rows), entry("columns", &LayerSummary::columns),
                            entry("rank", &LayerSummary::rank), entry("dense", &LayerSummary::dense),
                            entry("kept_energy", &LayerSummary::kept_energy),
                            entry("predicted_mse", &LayerSummary::predicted_mse),
                            entry("predicted_logloss", &LayerSummary::predicted_logloss),
                            entry("parameters_before", &LayerSummary::parameters_before),
                            entry("parameters_after", &LayerSummary::parameters_after));
  bind_record<PlanSize>(m, "PlanSize", "Size of a whole model after a plan.",
                        entry("parameters", &PlanSize::parameters), entry("bytes", &PlanSize::bytes),
                        entry("macs", &PlanSize::macs));
}

// `dataset` is what RankPolicy::kMeasured measures the model on.
std::string plan_text(const Statistics& statistics, Model* model, const Dataset* dataset, const py::kwargs& keywords) {
  const PlanOptions options = plan_options(keywords);
  const py::gil_scoped_release unlocked;
  if (model != nullptr && dataset != nullptr) {
    return plan_to_json(plan_ranks(statistics, options, measured_by_kl(*model, statistics, *dataset)));
  }
  return plan_to_json(model == nullptr ? plan_ranks(statistics, options) : plan_ranks(*model, statistics, options));
}

}  // namespace

void bind_plan(py::module_& m) {
  bind_plan_records(m);
  m.def("plan_ranks", &plan_text, "statistics"_a, "model"_a, "dataset"_a,
        "Keywords: the fields of PlanOptions. Returns the plan as JSON.");
  m.def(
      "summarize",
      [](const Statistics& statistics, const std::string& text, Model* model) {
        const RankPlan plan = plan_of_text(text);
        return model == nullptr ? summarize(statistics, plan) : summarize(*model, statistics, plan);
      },
      "statistics"_a, "plan"_a, "model"_a, ReleaseGil());
  m.def("spectrum_values", &spectrum_values, "statistics"_a, "layer"_a, "field"_a = -1, ReleaseGil(),
        "Eigenvalues of a layer's output, or of one field's for an embedding, descending.");
  m.def(
      "planned_size",
      [](const Statistics& statistics, const std::string& text, Model* model, const py::kwargs& folding) {
        const RankPlan plan = plan_of_text(text);
        const PlanOptions options = plan_options(folding);
        const py::gil_scoped_release unlocked;
        return model == nullptr ? planned_size(statistics, plan, options)
                                : planned_size(*model, statistics, plan, options);
      },
      "statistics"_a, "plan"_a, "model"_a, "Keywords: the fields of PlanOptions that say what fold() does.");
  m.def(
      "predicted_logloss",
      [](const Statistics& statistics, const std::string& text, Model* model) {
        const RankPlan plan = plan_of_text(text);
        return model == nullptr ? predicted_logloss(statistics, plan) : predicted_logloss(*model, statistics, plan);
      },
      "statistics"_a, "plan"_a, "model"_a, ReleaseGil());
}

}  // namespace afm::python
