#include "libafm/compress/fold.h"
#include "libafm/compress/refits.h"
#include "python/src/bind_record.h"
#include "python/src/bindings.h"

namespace afm::python {

void bind_fold(py::module_& m) {
  bind_record<Refusal>(m, "Refusal", "A part of a model that cannot be folded, and why.", entry("part", &Refusal::part),
                       entry("reason", &Refusal::reason));
  m.def(
      "fold",
      [](const Model& model) {
        const py::gil_scoped_release unlocked;
        FoldResult result = fold(model);
        return std::make_tuple(result.model, result.refused, result.requantized);
      },
      "model"_a);
  m.def(
      "fold_batch_norm",
      [](const Model& model) {
        const py::gil_scoped_release unlocked;
        FoldResult result = fold_batch_norm(model);
        return std::make_tuple(result.model, result.refused, result.requantized);
      },
      "model"_a);
  bind_record<RefitStep>(m, "RefitStep", "One change that a refit tried.", entry("part", &RefitStep::part),
                         entry("kl_before", &RefitStep::kl_before), entry("kl_after", &RefitStep::kl_after),
                         entry("kept", &RefitStep::kept));
  m.def(
      "refit",
      [](Model& compressed, Model& original, const Dataset& dataset, const Statistics& statistics, bool biases,
         bool first_layer, bool later_layers, bool batch_norm, bool calibration, double ridge, int64_t max_rows) {
        return refit_(compressed, original, dataset, statistics,
                      {.biases = biases,
                       .first_layer = first_layer,
                       .later_layers = later_layers,
                       .batch_norm = batch_norm,
                       .calibration = calibration,
                       .ridge = ridge,
                       .max_rows = max_rows});
      },
      "compressed"_a, "original"_a, "dataset"_a, "statistics"_a, py::kw_only(), "biases"_a, "first_layer"_a,
      "later_layers"_a, "batch_norm"_a, "calibration"_a, "ridge"_a, "max_rows"_a, ReleaseGil());
}

}  // namespace afm::python
