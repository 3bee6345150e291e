#pragma once

// Python arguments that several rooms take.

#include <array>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include <ATen/core/Tensor.h>

#include "libafm/core/fail.h"
#include "libafm/core/fields.h"
#include "libafm/data/batch.h"
#include "libafm/data/schema.h"
#include "python/src/bindings.h"

namespace afm::python {

// A torch.Tensor as it is; a numpy array as a view (a copy where it is not contiguous); anything else through
// torch.as_tensor; None is undefined.
at::Tensor tensor_of(const py::object& value);
// torch.device or its name.
at::Device device_of(const py::object& value);
Batch batch_of(const py::object& ids, const py::object& dense, const py::object& label);
// Undefined tensors are None in Python.
std::optional<at::Tensor> defined(const at::Tensor& tensor);

// A field of a schema by its name or its index in schema.fields.
int64_t field_index(const Schema& schema, const py::object& field);

// Raises KeyboardInterrupt when Ctrl-C was pressed. Takes the interpreter lock.
void check_signals();

// An enum by its name. ValueError: split must be one of train, valid, test, got 'tets'
template <NamedEnum Enum>
Enum enum_of(std::string_view text, std::string_view what) {
  constexpr auto names = enum_names(std::type_identity<Enum>{});
  std::string known;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] == text) return static_cast<Enum>(i);
    known.append(i == 0 ? "" : ", ").append(names[i]);
  }
  fail<std::invalid_argument>("{} must be one of {}, got '{}'", what, known, text);
}

}  // namespace afm::python
