#pragma once

// An options struct as a Python class, from its field_list alone:
//   bind_options<TrainOptions>(m, "TrainOptions", "How train() fits a model.");
//   >>> TrainOptions(epochs=3, learning_rate="fast")
//   TypeError: TrainOptions.learning_rate must be a number, got "fast"
// Keyword-only constructor, typed attributes, ==, repr, pickle, to_json, from_json, set_text (command line), fields.

#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "libafm/core/options_json.h"
#include "python/src/bindings.h"

namespace afm::python {

// Numbers, text, None and lists of them; anything else as its repr, for a refusal to show.
nlohmann::json json_of(py::handle value);
// Parses JSON text. ValueError: DeepFMOptions must be JSON, got 'x'
nlohmann::json parse_json(const std::string& text, const std::string& where);

// Does a Python value have the type of a field? (Its value may still break a rule.)
bool has_type(py::handle value, std::type_identity<bool>);
bool has_type(py::handle value, std::type_identity<int64_t>);
bool has_type(py::handle value, std::type_identity<double>);
bool has_type(py::handle value, std::type_identity<std::string>);
bool has_type(py::handle value, std::type_identity<std::vector<int64_t>>);
template <NamedEnum Enum>
bool has_type(py::handle value, std::type_identity<Enum>) {
  return has_type(value, std::type_identity<std::string>{});
}
template <typename Value>
bool has_type(py::handle value, std::type_identity<std::optional<Value>>) {
  return value.is_none() || has_type(value, std::type_identity<Value>{});
}

// The type of a field as Python writes it: "int", "Sequence[int]", "float | None".
template <typename Value>
std::string python_type(std::type_identity<Value>) {
  if constexpr (std::is_same_v<Value, bool>) return "bool";
  if constexpr (std::is_same_v<Value, int64_t>) return "int";
  if constexpr (std::is_same_v<Value, double>) return "float";
  if constexpr (std::is_same_v<Value, std::vector<int64_t>>) return "collections.abc.Sequence[int]";
  return "str";
}
template <typename Value>
std::string python_type(std::type_identity<std::optional<Value>>) {
  return python_type(std::type_identity<Value>{}) + " | None";
}

// As Python sees it: an enum by name, a list as a tuple (a change to a copy of a list would be lost without a word).
template <typename Value>
auto to_python(const Value& value) {
  if constexpr (NamedEnum<Value>) {
    return std::string(name_of(value));
  } else if constexpr (std::is_same_v<Value, std::vector<int64_t>>) {
    return py::tuple(py::cast(value));
  } else {
    return value;
  }
}

// repr() of a field's value.
template <typename Value>
std::string shown(const Value& value) {
  if constexpr (std::is_same_v<Value, std::vector<int64_t>>) {
    return py::repr(to_python(value)).template cast<std::string>();
  } else {
    return py::repr(py::cast(to_python(value))).template cast<std::string>();
  }
}

// TypeError for a value of another type, ValueError for one that the field does not take.
template <typename Value>
void take_value(py::handle handle, Value& value, detail::FieldPlace place) {
  try {
    detail::take(json_of(handle), value, place);
  } catch (const std::invalid_argument& error) {
    if (has_type(handle, std::type_identity<Value>{})) throw;
    throw py::type_error(error.what());
  }
}

template <HasFields Options>
std::vector<std::string_view> field_names() {
  std::vector<std::string_view> names;
  Options options;
  for_each_field(options, [&](std::string_view name, auto&, std::string_view) { names.push_back(name); });
  return names;
}

template <HasFields Options>
void set_field(Options& options, const std::string& name, py::handle value, const std::string& where) {
  bool found = false;
  for_each_field(options, [&](std::string_view field_name, auto& member, std::string_view) {
    if (field_name != name) return;
    take_value(value, member, {where, field_name});
    found = true;
  });
  if (found) return;
  try {
    detail::refuse_name({where, name}, field_names<Options>());
  } catch (const std::invalid_argument& error) {
    throw py::type_error(error.what());
  }
}

template <HasFields Options>
Options options_of(const py::kwargs& values, const std::string& where) {
  Options options;
  for (const auto& item : values) set_field(options, py::cast<std::string>(item.first), item.second, where);
  return options;
}

// "__init__(self, *, epochs: int = 50, ...) -> None", the documentation of each field below it.
template <HasFields Options>
std::string constructor_doc() {
  std::string signature = "__init__(self, *", doc = "Args:";
  Options options;
  for_each_field(options, [&](std::string_view name, const auto& value, std::string_view text) {
    using Value = std::remove_cvref_t<decltype(value)>;
    signature += fmt::format(", {}: {} = {}", name, python_type(std::type_identity<Value>{}), shown(value));
    doc += fmt::format("\n    {}: {}", name, text);
  });
  return signature + ") -> None\n\n" + doc;
}

template <HasFields Options>
std::string repr_of(const Options& options, const std::string& name) {
  std::string text;
  for_each_field(options, [&](std::string_view field_name, const auto& value, std::string_view) {
    text += fmt::format("{}{}={}", text.empty() ? "" : ", ", field_name, shown(value));
  });
  return fmt::format("{}({})", name, text);
}

template <HasFields Options>
py::class_<Options> bind_options(py::module_& m, const std::string& name, const char* doc) {
  py::class_<Options> type(m, name.c_str(), doc);
  {
    py::options signatures;
    signatures.disable_function_signatures();
    type.def(py::init([name](const py::kwargs& values) { return options_of<Options>(values, name); }),
             constructor_doc<Options>().c_str());
  }
  const auto add = [&](const auto& item) {
    const auto member = item.member;
    const std::string field_name(item.name);
    type.def_property(
        field_name.c_str(), [member](const Options& self) { return to_python(self.*member); },
        [name, field_name](Options& self, const py::object& value) { set_field(self, field_name, value, name); },
        std::string(item.doc).c_str());
  };
  std::apply([&](const auto&... item) { (add(item), ...); }, field_list(std::type_identity<Options>{}));
  const auto from_text = [name](const std::string& text) { return from_json<Options>(parse_json(text, name), name); };
  type.def(
      "to_json", [](const Options& self) { return to_json(self).dump(); }, "Every field as JSON.");
  type.def_static("from_json", from_text, "json"_a, "From JSON; fields that it lacks keep their defaults.");
  type.def(
      "set_text",
      [name](Options& self, const std::string& field, const std::string& text) {
        return set_from_text(self, field, text, name);
      },
      "name"_a, "text"_a, "Sets one field from command line text; False when there is no field of that name.");
  type.def_static(
      "fields", [] { return describe(Options{}); }, "Name, type, default and documentation of each field.");
  type.def("__repr__", [name](const Options& self) { return repr_of(self, name); });
  type.def(
      "__eq__", [](const Options& self, const Options& other) { return to_json(self) == to_json(other); },
      py::is_operator());
  type.def(py::pickle([](const Options& self) { return to_json(self).dump(); }, from_text));
  return type;
}

}  // namespace afm::python
