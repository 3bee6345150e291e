#include <c10/util/Exception.h>
#include <torch/csrc/Exceptions.h>

#include "libafm/core/error.h"
#include "python/src/bindings.h"

namespace afm::python {
namespace {

// The Python classes, alive as long as the interpreter.
struct ErrorClasses {
  PyObject *error = nullptr, *data = nullptr, *format = nullptr, *io = nullptr;
};
ErrorClasses classes;

void translate(std::exception_ptr pointer) {
  try {
    std::rethrow_exception(pointer);
  } catch (const DataError& error) {
    PyErr_SetString(classes.data, error.what());
  } catch (const FormatError& error) {
    PyErr_SetString(classes.format, error.what());
  } catch (const IoError& error) {
    PyErr_SetString(classes.io, error.what());
  } catch (const Error& error) {
    PyErr_SetString(classes.error, error.what());
  } catch (const c10::Error&) {
    torch::translate_exception_to_python(pointer);  // without the C++ backtrace
  } catch (const python_error&) {
    torch::translate_exception_to_python(pointer);  // raised by Python code that torch called
  }
}

}  // namespace

void bind_errors(py::module_& m) {
  const auto errors = py::module_::import("afm.errors");
  const auto add = [&](const char* name) {
    const py::object type = errors.attr(name);
    m.attr(name) = type;
    return type.inc_ref().ptr();
  };
  classes = {.error = add("Error"), .data = add("DataError"), .format = add("FormatError"), .io = add("IoError")};
  py::register_local_exception_translator(translate);
}

}  // namespace afm::python
