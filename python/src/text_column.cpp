#include "python/src/text_column.h"

#include <stdexcept>

#include "libafm/core/fail.h"

namespace afm::python {
namespace {

std::string_view view_of_bytes(py::handle bytes) {
  return {PyBytes_AS_STRING(bytes.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(bytes.ptr()))};
}

// `kept` holds what is made on the way.
std::string_view view_of(py::handle value, py::list& kept) {
  if (value.is_none()) return {};
  if (PyBytes_Check(value.ptr())) return view_of_bytes(value);
  if (!PyUnicode_Check(value.ptr())) {
    throw py::type_error(
        fmt::format("a value must be str, bytes or None, got {}", py::repr(value).cast<std::string>()));
  }
  Py_ssize_t size = 0;
  if (const char* text = PyUnicode_AsUTF8AndSize(value.ptr(), &size)) return {text, static_cast<std::size_t>(size)};
  PyErr_Clear();  // surrogates: bytes that are not UTF-8
  const auto bytes =
      py::reinterpret_steal<py::object>(PyUnicode_AsEncodedString(value.ptr(), "utf-8", "surrogateescape"));
  if (!bytes) throw py::error_already_set();
  kept.append(bytes);
  return view_of_bytes(bytes);
}

}  // namespace

TextColumn::TextColumn(const py::sequence& values) {
  if (PyUnicode_Check(values.ptr()) || PyBytes_Check(values.ptr())) {
    throw py::type_error("values must be a list of str, got one text");
  }
  const py::tuple items(values);  // a copy: the caller may change his list meanwhile
  py::list kept;
  views_.reserve(items.size());
  for (const auto item : items) views_.push_back(view_of(item, kept));
  owner_ = py::make_tuple(items, kept);
}

TextColumn::TextColumn(const Bytes& data, const Offsets& offsets) : owner_(py::make_tuple(data, offsets)) {
  if (data.ndim() != 1 || offsets.ndim() != 1 || offsets.size() < 1) {
    fail<std::invalid_argument>("data must be [bytes] and offsets [rows + 1], got {} and {} dimensions, {} offsets",
                                data.ndim(), offsets.ndim(), offsets.size());
  }
  const auto* bytes = reinterpret_cast<const char*>(data.data());
  const int64_t* ends = offsets.data();
  views_.reserve(offsets.size() - 1);
  for (py::ssize_t row = 0; row + 1 < offsets.size(); ++row) {
    if (ends[row] < 0 || ends[row] > ends[row + 1] || ends[row + 1] > data.size()) {
      fail<std::invalid_argument>("offsets must rise within [0, {}], got {} and {} for row {}", data.size(), ends[row],
                                  ends[row + 1], row);
    }
    views_.emplace_back(bytes + ends[row], ends[row + 1] - ends[row]);
  }
}

py::str text_of(std::string_view bytes) {
  PyObject* text = PyUnicode_DecodeUTF8(bytes.data(), static_cast<py::ssize_t>(bytes.size()), "surrogateescape");
  if (text == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::str>(text);
}

}  // namespace afm::python
