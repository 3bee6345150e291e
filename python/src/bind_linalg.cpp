#include "libafm/linalg/factors.h"
#include "libafm/linalg/moments.h"
#include "libafm/linalg/spectrum.h"
#include "python/src/arguments.h"
#include "python/src/bind_record.h"
#include "python/src/bindings.h"

namespace afm::python {
namespace {

void bind_moments(py::module_& m) {
  py::class_<Moments>(m, "Moments",
                      "Streaming mean and scatter of vectors, in float64, centred, merged by Chan's formula.")
      .def(py::init<>(), "Takes its dimension and device from the first rows.")
      .def(py::init([](int64_t dim, const py::object& device) { return Moments(dim, device_of(device)); }), "dim"_a,
           py::kw_only(), "device"_a = "cpu")
      .def("add", &Moments::add, "rows"_a, ReleaseGil(), "Adds rows [B, m]; rows that are not finite are skipped.")
      .def("add_weighted", &Moments::add_weighted, "rows"_a, "weights"_a, ReleaseGil(),
           "Adds rows [B, m] with a weight each, [B].")
      .def("merge", &Moments::merge, "other"_a, ReleaseGil(), "As if the rows of `other` had been added here.")
      .def_property_readonly("dim", &Moments::dim)
      .def_property_readonly("count", &Moments::count, "Rows, or the sum of their weights.")
      .def_property_readonly("skipped", &Moments::skipped, "Rows with an entry that is not finite.")
      .def_property_readonly(
          "mean", [](const Moments& self) { return defined(self.mean()); }, "[m] float64.")
      .def_property_readonly(
          "scatter", [](const Moments& self) { return defined(self.scatter()); }, "[m, m] float64.")
      .def("covariance", &Moments::covariance, ReleaseGil(), "[m, m] float64: scatter / count.");
}

void bind_spectrum(py::module_& m) {
  bind_record<Spectrum>(m, "Spectrum", "Eigenvalues, descending, and eigenvectors (columns) of a covariance.",
                        entry("values", &Spectrum::values), entry("vectors", &Spectrum::vectors),
                        entry("rank", &Spectrum::rank))
      .def("total", &Spectrum::total, "Sum of the values.")
      .def("discarded", &Spectrum::discarded, "k"_a, "Sum of values[k:]: the least mean squared error at rank k.")
      .def("kept_energy", &Spectrum::kept_energy, "k"_a, "1 - discarded / total.")
      .def("rank_for_energy", &Spectrum::rank_for_energy, "energy"_a, "Smallest k that keeps that share of the total.");
  m.def("spectrum_of", &spectrum_of, "covariance"_a, ReleaseGil(), "The spectrum of a covariance [m, m].");
}

void bind_factors(py::module_& m) {
  bind_record<Factors>(m, "Factors", "y' = up (down x + down_bias) + up_bias.", entry("down", &Factors::down),
                       entry("down_bias", &Factors::down_bias), entry("up", &Factors::up),
                       entry("up_bias", &Factors::up_bias));
  bind_record<TableFactors>(m, "TableFactors", "Rows e_v ~ basis' latent_v + offset.",
                            entry("latent", &TableFactors::latent), entry("basis", &TableFactors::basis),
                            entry("offset", &TableFactors::offset));
  m.def(
      "mimic_output",
      [](const at::Tensor& weight, const std::optional<at::Tensor>& bias, const at::Tensor& mean,
         const Spectrum& spectrum,
         int64_t k) { return mimic_output(weight, bias.value_or(at::Tensor()), mean, spectrum, k); },
      "weight"_a, "bias"_a, "mean"_a, "spectrum"_a, "k"_a, ReleaseGil(),
      "The affine map of rank k with the least mean squared error on the outputs that `spectrum` and `mean` describe.");
  m.def(
      "truncate_weight",
      [](const at::Tensor& weight, const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& input_mean,
         int64_t k) {
        return truncate_weight(weight, bias.value_or(at::Tensor()), input_mean.value_or(at::Tensor()), k);
      },
      "weight"_a, "bias"_a, "input_mean"_a, "k"_a, ReleaseGil(),
      "The baseline: truncated singular value decomposition of the weight alone.");
  m.def(
      "mimic_table",
      [](const at::Tensor& table, const at::Tensor& mean, const Spectrum& spectrum, int64_t k) {
        return mimic_table(table, mean, spectrum, k);
      },
      "table"_a, "mean"_a, "spectrum"_a, "k"_a, ReleaseGil(), "The rank-k form of an embedding table [N, D].");
}

}  // namespace

void bind_linalg(py::module_& m) {
  bind_moments(m);
  bind_spectrum(m);
  bind_factors(m);
}

}  // namespace afm::python
