// Private: the templates of options_json.h. Everything that need not be a template is in options_json.cpp.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>

namespace afm::detail {

// A field, for errors: DeepFMOptions.dropout.
struct FieldPlace {
  std::string_view where, name;
};

[[noreturn]] void refuse_value(FieldPlace place, std::string_view rule, const nlohmann::json& got);
[[noreturn]] void refuse_name(FieldPlace place, const std::vector<std::string_view>& known);
void check_is_object(const nlohmann::json& json, std::string_view where);

// Each value is checked in its JSON form, so that JSON and command line text obey the same rules.
void take(const nlohmann::json& json, bool& value, FieldPlace place);
void take(const nlohmann::json& json, int64_t& value, FieldPlace place);
void take(const nlohmann::json& json, double& value, FieldPlace place);
void take(const nlohmann::json& json, std::string& value, FieldPlace place);
void take(const nlohmann::json& json, std::vector<int64_t>& value, FieldPlace place);
std::size_t index_in(std::span<const std::string_view> names, const nlohmann::json& json, FieldPlace place);

nlohmann::json scalar_from_text(std::string_view text);  // a boolean or a number where it is one, else a string
nlohmann::json list_from_text(std::string_view text);    // scalars between commas; "" is the empty list
std::string text_from_json(const nlohmann::json& json);  // the inverse of both
std::string join(const auto& names, std::string_view separator) {
  std::string text;
  for (const auto& name : names) text.append(text.empty() ? "" : separator).append(name);
  return text;
}

template <NamedEnum Enum>
void take(const nlohmann::json& json, Enum& value, FieldPlace place) {
  static constexpr auto kNames = enum_names(std::type_identity<Enum>{});
  value = static_cast<Enum>(index_in(kNames, json, place));
}

template <typename Number>
void take(const nlohmann::json& json, std::optional<Number>& value, FieldPlace place) {
  value.reset();
  if (!json.is_null()) take(json, value.emplace(), place);
}

template <typename Value>
inline constexpr bool kIsOptional = false;
template <typename Number>
inline constexpr bool kIsOptional<std::optional<Number>> = true;

template <typename Value>
nlohmann::json json_of(const Value& value) {
  if constexpr (kIsOptional<Value>) {
    return value ? nlohmann::json(*value) : nlohmann::json();
  } else if constexpr (NamedEnum<Value>) {
    return name_of(value);
  } else {
    return value;
  }
}

template <typename Value>
nlohmann::json json_from_text(std::string_view text) {
  if constexpr (std::is_same_v<Value, std::string> || NamedEnum<Value>) {
    return text;
  } else if constexpr (std::is_same_v<Value, std::vector<int64_t>>) {
    return list_from_text(text);
  } else {
    return kIsOptional<Value> && text == "none" ? nlohmann::json() : scalar_from_text(text);
  }
}

template <typename Value>
std::string type_text(std::type_identity<Value>) {
  if constexpr (std::is_same_v<Value, bool>) {
    return "boolean";
  } else if constexpr (std::is_same_v<Value, int64_t>) {
    return "integer";
  } else if constexpr (std::is_same_v<Value, double>) {
    return "number";
  } else if constexpr (std::is_same_v<Value, std::string>) {
    return "text";
  } else if constexpr (kIsOptional<Value>) {
    return type_text(std::type_identity<typename Value::value_type>{});
  } else if constexpr (NamedEnum<Value>) {
    return join(enum_names(std::type_identity<Value>{}), "|");
  } else {
    static_assert(std::is_same_v<Value, std::vector<int64_t>>, "fields.h lists the types that a field may have");
    return "integers";
  }
}

}  // namespace afm::detail

namespace afm {

template <HasFields Options>
nlohmann::json to_json(const Options& options) {
  nlohmann::json json = nlohmann::json::object();
  for_each_field(options, [&](std::string_view name, const auto& value, std::string_view) {
    json[std::string(name)] = detail::json_of(value);
  });
  return json;
}

template <HasFields Options>
Options from_json(const nlohmann::json& json, std::string_view where) {
  detail::check_is_object(json, where);
  Options options;
  std::vector<std::string_view> known;
  for_each_field(options, [&](std::string_view name, auto& value, std::string_view) {
    known.push_back(name);
    const auto found = json.find(name);
    if (found != json.end()) detail::take(*found, value, {where, name});
  });
  for (const auto& item : json.items()) {
    if (std::find(known.begin(), known.end(), item.key()) == known.end()) {
      detail::refuse_name({where, item.key()}, known);
    }
  }
  return options;
}

template <HasFields Options>
bool set_from_text(Options& options, std::string_view name, std::string_view text, std::string_view where) {
  bool found = false;
  for_each_field(options, [&](std::string_view field_name, auto& value, std::string_view) {
    if (field_name != name) return;
    using Value = std::remove_reference_t<decltype(value)>;
    detail::take(detail::json_from_text<Value>(text), value, {where, name});
    found = true;
  });
  return found;
}

template <HasFields Options>
std::vector<FieldText> describe(const Options& options) {
  std::vector<FieldText> fields;
  for_each_field(options, [&](std::string_view name, const auto& value, std::string_view doc) {
    using Value = std::remove_cvref_t<decltype(value)>;
    fields.push_back({std::string(name), detail::type_text(std::type_identity<Value>{}),
                      detail::text_from_json(detail::json_of(value)), std::string(doc)});
  });
  return fields;
}

}  // namespace afm
