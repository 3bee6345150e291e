#pragma once

// A plain result struct as a read-only Python class with repr and to_dict:
//   bind_record<Metrics>(m, "Metrics", "Quality of a model.", entry("auc", &Metrics::auc), ...);

#include <string>
#include <utility>
#include <vector>

#include "python/src/bindings.h"

namespace afm::python {

template <typename Record, typename Value>
std::pair<const char*, Value Record::*> entry(const char* name, Value Record::*member) {
  return {name, member};
}

std::string repr_of_record(const py::object& record, const std::string& type, const std::vector<std::string>& names);
// Records within become dicts too.
py::dict dict_of_record(const py::object& record, const std::vector<std::string>& names);

template <typename Record, typename... Values>
py::class_<Record> bind_record(py::module_& m, const char* name, const char* doc,
                               std::pair<const char*, Values Record::*>... entries) {
  py::class_<Record> type(m, name, doc);
  (type.def_readonly(entries.first, entries.second), ...);
  const std::vector<std::string> names = {entries.first...};
  type.def("__repr__", [name, names](const py::object& self) { return repr_of_record(self, name, names); });
  type.def("to_dict", [names](const py::object& self) { return dict_of_record(self, names); });
  return type;
}

}  // namespace afm::python
