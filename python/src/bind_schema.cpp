#include "libafm/data/schema.h"
#include "python/src/bind_options.h"
#include "python/src/bindings.h"

namespace afm::python {
namespace {

std::string repr_of_schema(const Schema& schema) {
  std::string names;
  for (const auto& field : schema.fields) names.append(names.empty() ? "" : ", ").append(field.name);
  return fmt::format("<afm.Schema label='{}' fields=[{}]>", schema.label, names);
}

}  // namespace

void bind_schema(py::module_& m) {
  bind_options<FieldSpec>(m, "FieldSpec", "One column of a table, and how a model sees it.")
      .def_property_readonly("has_ids", &FieldSpec::has_ids, "Categorical or multi-valued.")
      .def_property_readonly("slots", &FieldSpec::slots, "Id slots of a row.");
  py::class_<Schema>(m, "Schema", "The label and the fields of a table: the contract between data and models.")
      .def(py::init([](std::vector<FieldSpec> fields, std::string label) {
             return Schema{.label = std::move(label), .fields = std::move(fields)};
           }),
           "fields"_a, py::kw_only(), "label"_a = "label")
      .def_readonly("label", &Schema::label)
      .def_property_readonly(
          "fields", [](const Schema& self) { return py::tuple(py::cast(self.fields)); },
          "The fields: id fields in slot order, numeric fields in the order of the dense columns. Copies.")
      .def_property_readonly("id_field_names", &Schema::id_field_names)
      .def_property_readonly("cardinalities", &Schema::cardinalities, "Ids of each id field.")
      .def_property_readonly("slots", &Schema::slots, "Slots of each id field.")
      .def_property_readonly("slot_count", &Schema::slot_count, "S.")
      .def_property_readonly("dense_count", &Schema::dense_count, "Q.")
      .def("fingerprint", &Schema::fingerprint, "Of all that fixes the meaning of an encoded row.")
      .def("check_counted", &check_counted, "Raises DataError where a model could not be built on it.")
      .def("to_json", &schema_to_json)
      .def_static("from_json", &schema_from_json, "json"_a)
      .def(
          "__eq__", [](const Schema& self, const Schema& other) { return self == other; }, py::is_operator())
      .def("__repr__", &repr_of_schema)
      .def(py::pickle(&schema_to_json, [](const std::string& text) { return schema_from_json(text); }));
  m.def("schema_from_json", &schema_from_json, "json"_a, "Raises DataError for what is not a schema.");
  m.def("schema_to_json", &schema_to_json, "schema"_a);
  m.def("read_schema", &read_schema, "path"_a, "Reads schema.json, as a person may have edited it.");
  m.def("write_schema", &write_schema, "path"_a, "schema"_a);
}

}  // namespace afm::python
