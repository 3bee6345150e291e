#include "python/src/arguments.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/tensor_numpy.h>

namespace afm::python {
namespace {

at::Tensor view_of_array(const py::array& value) {
  // Without torch.from_numpy's warning: nothing in libafm writes to an argument.
  py::object ordered = value;
  if (!value.dtype().attr("isnative").cast<bool>()) {
    ordered = value.attr("astype")(value.dtype().attr("newbyteorder")("="));
  }
  const auto array = py::array::ensure(ordered, py::array::c_style);
  if (!array) throw py::error_already_set();
  const auto dtype = torch::utils::numpy_dtype_to_aten(py::dtype(array.dtype()).num());
  auto* owner = new py::object(array);  // NOLINT(cppcoreguidelines-owning-memory): freed by the tensor's deleter
  const auto release = [owner](void*) {
    const py::gil_scoped_acquire lock;
    delete owner;  // NOLINT(cppcoreguidelines-owning-memory)
  };
  const std::vector<int64_t> shape(array.shape(), array.shape() + array.ndim());
  return at::from_blob(const_cast<void*>(array.data()), shape, release, at::TensorOptions().dtype(dtype));
}

}  // namespace

at::Tensor tensor_of(const py::object& value) {
  if (value.is_none()) return {};
  if (THPVariable_Check(value.ptr())) return value.cast<at::Tensor>();
  if (py::isinstance<py::array>(value)) return view_of_array(py::reinterpret_borrow<py::array>(value));
  return py::module_::import("torch").attr("as_tensor")(value).cast<at::Tensor>();
}

at::Device device_of(const py::object& value) {
  return py::module_::import("torch").attr("device")(value).cast<at::Device>();
}

Batch batch_of(const py::object& ids, const py::object& dense, const py::object& label) {
  return {.ids = tensor_of(ids), .dense = tensor_of(dense), .label = tensor_of(label)};
}

std::optional<at::Tensor> defined(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

int64_t field_index(const Schema& schema, const py::object& field) {
  const auto count = static_cast<int64_t>(schema.fields.size());
  if (py::isinstance<py::str>(field)) {
    const auto name = field.cast<std::string>();
    for (int64_t i = 0; i < count; ++i) {
      if (schema.fields[i].name == name) return i;
    }
    fail<std::invalid_argument>("the schema has no field '{}'", name);
  }
  const auto index = field.cast<int64_t>();
  if (index < 0 || index >= count) fail<std::invalid_argument>("field must be in [0, {}), got {}", count, index);
  return index;
}

void check_signals() {
  const py::gil_scoped_acquire lock;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

}  // namespace afm::python
