#include "libafm/metrics/metrics.h"
#include "python/src/arguments.h"
#include "python/src/bind_record.h"
#include "python/src/bindings.h"

// A dict by field, in the order of the schema.
template <>
struct pybind11::detail::type_caster<std::vector<afm::UnknownShare>> {
  PYBIND11_TYPE_CASTER(std::vector<afm::UnknownShare>, const_name("dict[str, float]"));
  static handle cast(const std::vector<afm::UnknownShare>& shares, return_value_policy, handle) {
    dict by_field;
    for (const auto& [field, share] : shares) by_field[str(field)] = share;
    return by_field.release();
  }
};

namespace afm::python {
namespace {

// Ctrl-C works between batches, with or without a callback.
EvaluateOptions options_of(int64_t batch_size, const py::object& on_progress) {
  return {.batch_size = batch_size, .on_progress = [&on_progress](int64_t rows) {
            const py::gil_scoped_acquire lock;
            check_signals();
            if (!on_progress.is_none()) on_progress(rows);
          }};
}

}  // namespace

void bind_metrics(py::module_& m) {
  bind_record<Metrics>(m, "Metrics", R"(How good a model is.

auc and logloss (nats per row) over `rows` rows; unknown: field -> share of its values that are unknown, in [0, 1].)",
                       entry("auc", &Metrics::auc), entry("logloss", &Metrics::logloss), entry("rows", &Metrics::rows),
                       entry("unknown", &Metrics::unknown));
  m.def(
      "auc",
      [](const py::object& logits, const py::object& labels) {
        const at::Tensor s = tensor_of(logits), t = tensor_of(labels);
        const py::gil_scoped_release unlocked;
        return auc(s, t);
      },
      "logits"_a, "labels"_a, "Area under the ROC curve, ties averaged.");
  m.def(
      "logloss",
      [](const py::object& logits, const py::object& labels) {
        const at::Tensor s = tensor_of(logits), t = tensor_of(labels);
        const py::gil_scoped_release unlocked;
        return logloss(s, t);
      },
      "logits"_a, "labels"_a, "Mean of softplus(s) - t s.");
  m.def(
      "predict",
      [](Model& model, const Dataset& dataset, int64_t batch_size, const py::object& on_progress) {
        const auto options = options_of(batch_size, on_progress);
        const py::gil_scoped_release unlocked;
        return predict(model, dataset, options);
      },
      "model"_a, "dataset"_a, "batch_size"_a, "on_progress"_a);
  m.def(
      "evaluate",
      [](Model& model, const Dataset& dataset, int64_t batch_size, const py::object& on_progress) {
        const auto options = options_of(batch_size, on_progress);
        const py::gil_scoped_release unlocked;
        return evaluate(model, dataset, options);
      },
      "model"_a, "dataset"_a, "batch_size"_a, "on_progress"_a);
}

}  // namespace afm::python
