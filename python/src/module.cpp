#include "python/src/bindings.h"

PYBIND11_MODULE(_core, m) {
  using namespace afm::python;  // NOLINT(google-build-using-namespace)
  m.doc() = "The C++ core of libafm. Use the names of the package afm; this module may change.";
  py::module_::import("torch");  // registers torch's types
  bind_errors(m);
  bind_core(m);
  bind_linalg(m);
  bind_schema(m);
  bind_encoder(m);
  bind_dataset(m);
  bind_nn(m);
  bind_models(m);
  bind_metrics(m);
  bind_train(m);
  bind_compress(m);
  bind_serve(m);
}
