#pragma once

// One list of fields per options struct. From it come the JSON form, the Python keyword constructor and repr, the
// command line's --set, and the error for an unknown option; nothing else in the project lists an option by name.
//
//   struct MlpOptions { std::vector<int64_t> hidden = {400, 400}; double dropout = 0.0; };
//   constexpr auto field_list(std::type_identity<MlpOptions>) {
//     return std::make_tuple(field("hidden", &MlpOptions::hidden, "Widths of the hidden layers."),
//                            field("dropout", &MlpOptions::dropout, "Share of units dropped, in [0, 1)."));
//   }
//
// Field types: bool, int64_t, double, std::string, std::vector<int64_t>, std::optional of a number, and any enum with
// an enum_names() list, which is written by name.

#include <array>
#include <string_view>
#include <tuple>
#include <type_traits>

namespace afm {

template <typename Struct, typename Value>
struct Field {
  std::string_view name;
  Value Struct::*member;
  std::string_view doc;
};

template <typename Struct, typename Value>
constexpr Field<Struct, Value> field(std::string_view name, Value Struct::*member, std::string_view doc) {
  return {name, member, doc};
}

// A struct for which field_list() was declared.
template <typename Struct>
concept HasFields = requires {
  field_list(std::type_identity<std::remove_cvref_t<Struct>>{});
};

// Calls visit(name, value&, doc) for each field of `options`, in order of declaration.
template <typename Struct, typename Visit>
requires HasFields<Struct>
void for_each_field(Struct& options, Visit&& visit) {
  std::apply([&](const auto&... item) { (visit(item.name, options.*(item.member), item.doc), ...); },
             field_list(std::type_identity<std::remove_cvref_t<Struct>>{}));
}

// An enum that is written by name declares, in its own namespace, in the order of its values from 0:
//   constexpr std::array<std::string_view, 2> enum_names(std::type_identity<CrossForm>) {
//     return {"vector", "matrix"};
//   }
template <typename Enum>
concept NamedEnum = std::is_enum_v<Enum> && requires {
  enum_names(std::type_identity<Enum>{});
};

template <NamedEnum Enum>
constexpr std::string_view name_of(Enum value) {
  return enum_names(std::type_identity<Enum>{})[static_cast<std::size_t>(value)];
}

}  // namespace afm
