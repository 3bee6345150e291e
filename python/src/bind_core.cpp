#include <torch/version.h>

#include "libafm/core/safetensors.h"
#include "libafm/core/tensors.h"
#include "libafm/core/version.h"
#include "python/src/arguments.h"
#include "python/src/bind_options.h"
#include "python/src/bind_record.h"
#include "python/src/bindings.h"

namespace afm::python {
namespace {

bool is_integer(py::handle value) { return !PyBool_Check(value.ptr()) && PyIndex_Check(value.ptr()) != 0; }

bool is_number(py::handle value) {
  if (PyFloat_Check(value.ptr()) || is_integer(value)) return true;
  return !PyBool_Check(value.ptr()) && !PyUnicode_Check(value.ptr()) && py::hasattr(value, "__float__") &&
         !py::hasattr(value, "__len__");
}

nlohmann::json json_of_integer(py::handle value) {
  const auto number = py::reinterpret_steal<py::int_>(PyNumber_Index(value.ptr()));
  if (!number) throw py::error_already_set();
  int overflow = 0;
  const int64_t small = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  if (overflow == 0) return small;
  return py::repr(number).cast<std::string>();
}

nlohmann::json json_of_list(py::handle value) {
  nlohmann::json list = nlohmann::json::array();
  for (const auto item : py::reinterpret_borrow<py::sequence>(value)) list.push_back(json_of(item));
  return list;
}

void bind_files(py::module_& m) {
  py::class_<SafetensorsFile>(m, "SafetensorsFile", "An open safetensors file: memory-mapped, header checked.")
      .def_static("open", &SafetensorsFile::open, "path"_a, ReleaseGil())
      .def_property_readonly("path", &SafetensorsFile::path)
      .def_property_readonly("metadata", &SafetensorsFile::metadata)
      .def_property_readonly("has_checksum", &SafetensorsFile::has_checksum)
      .def("verify", &SafetensorsFile::verify, ReleaseGil(), "Checks the data against the checksum.")
      .def("names",
           [](const SafetensorsFile& file) {
             std::vector<std::string> names;
             for (const auto& [name, view] : file.tensors()) names.push_back(name);
             return names;
           })
      .def(
          "shape", [](const SafetensorsFile& file, const std::string& name) { return file.at(name).shape; }, "name"_a)
      .def(
          "dtype",
          [](const SafetensorsFile& file, const std::string& name) {
            return std::string(name_of(file.at(name).dtype));
          },
          "name"_a)
      .def(
          "tensor",
          [](const SafetensorsFile& file, const std::string& name) { return view_tensor(file, name).clone(); },
          "name"_a, ReleaseGil(), "A copy of one tensor.");
  m.def(
      "read_tensors", [](const std::filesystem::path& path) { return read_tensors(SafetensorsFile::open(path)); },
      "path"_a, ReleaseGil(), "Every tensor of a safetensors file, copied to the CPU.");
  m.def("save_tensors", &save_tensors, "path"_a, "metadata"_a, "tensors"_a, ReleaseGil(),
        "Writes a safetensors file, with a checksum: whole or not at all.");
}

}  // namespace

bool has_type(py::handle value, std::type_identity<bool>) { return PyBool_Check(value.ptr()); }
bool has_type(py::handle value, std::type_identity<int64_t>) { return is_integer(value); }
bool has_type(py::handle value, std::type_identity<double>) { return is_number(value); }
bool has_type(py::handle value, std::type_identity<std::string>) { return py::isinstance<py::str>(value); }
bool has_type(py::handle value, std::type_identity<std::vector<int64_t>>) {
  if (!py::isinstance<py::list>(value) && !py::isinstance<py::tuple>(value)) return false;
  const auto items = py::reinterpret_borrow<py::sequence>(value);
  return std::all_of(items.begin(), items.end(), is_integer);
}

nlohmann::json json_of(py::handle value) {
  if (value.is_none()) return nullptr;
  if (PyBool_Check(value.ptr())) return value.cast<bool>();
  if (py::isinstance<py::str>(value)) return value.cast<std::string>();
  if (py::isinstance<py::list>(value) || py::isinstance<py::tuple>(value)) return json_of_list(value);
  if (is_integer(value)) return json_of_integer(value);
  if (is_number(value)) return py::float_(py::reinterpret_borrow<py::object>(value)).cast<double>();
  return py::repr(value).cast<std::string>();
}

nlohmann::json parse_json(const std::string& text, const std::string& where) {
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception&) {
    fail<std::invalid_argument>("{} must be JSON, got '{}'", where, text);
  }
}

std::string repr_of_record(const py::object& record, const std::string& type, const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) {
    text +=
        fmt::format("{}{}={}", text.empty() ? "" : ", ", name, py::repr(record.attr(name.c_str())).cast<std::string>());
  }
  return fmt::format("{}({})", type, text);
}

py::dict dict_of_record(const py::object& record, const std::vector<std::string>& names) {
  const auto plain = [](const py::object& value) -> py::object {
    return py::hasattr(value, "to_dict") ? value.attr("to_dict")() : value;
  };
  py::dict dict;
  for (const auto& name : names) {
    const py::object value = record.attr(name.c_str());
    if (py::isinstance<py::list>(value)) {
      py::list items;
      for (const auto item : value) items.append(plain(py::reinterpret_borrow<py::object>(item)));
      dict[name.c_str()] = items;
    } else {
      dict[name.c_str()] = plain(value);
    }
  }
  return dict;
}

void bind_core(py::module_& m) {
  m.attr("__version__") = std::string(kVersion);
  m.attr("FORMAT_VERSION") = kFormatVersion;
  m.attr("TORCH_VERSION") = TORCH_VERSION;  // that this module was compiled against
  bind_record<FieldText>(m, "OptionField", "One field of an options class.", entry("name", &FieldText::name),
                         entry("type", &FieldText::type), entry("default", &FieldText::value),
                         entry("doc", &FieldText::doc));
  bind_files(m);
}

}  // namespace afm::python
