#pragma once

// One function per room; module.cpp is the list. Bindings hold no logic: they turn Python arguments into C++ ones,
// release the interpreter lock and call.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <torch/csrc/utils/pybind.h>

namespace afm::python {

namespace py = pybind11;
using namespace pybind11::literals;  // NOLINT(google-build-using-namespace): "name"_a

void bind_errors(py::module_& m);
void bind_core(py::module_& m);
void bind_linalg(py::module_& m);
void bind_schema(py::module_& m);
void bind_encoder(py::module_& m);
void bind_dataset(py::module_& m);
void bind_nn(py::module_& m);
void bind_models(py::module_& m);
void bind_metrics(py::module_& m);
void bind_train(py::module_& m);
void bind_compress(py::module_& m);
void bind_serve(py::module_& m);
void bind_plan(py::module_& m);  // with bind_compress
void bind_fold(py::module_& m);  // with bind_compress

// For everything that reads data, trains or evaluates.
using ReleaseGil = py::call_guard<py::gil_scoped_release>;

}  // namespace afm::python
