#include "libafm/core/options_json.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <utility>

#include "libafm/core/fail.h"
#include "libafm/core/json_text.h"

namespace afm::detail {
namespace {

using nlohmann::json;

bool is_int64(const json& value) {
  return value.is_number_unsigned() ? value.get<uint64_t>() <= std::numeric_limits<int64_t>::max()
                                    : value.is_number_integer();
}

// The whole text as one number.
template <typename Number>
std::optional<Number> parse_number(std::string_view text) {
  Number number{};
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc{} || stop != end) return std::nullopt;
  return number;
}

}  // namespace

void refuse_value(FieldPlace place, std::string_view rule, const json& got) {
  fail<std::invalid_argument>("{}.{} must {}, got {}", place.where, place.name, rule, shown(got));
}

void refuse_name(FieldPlace place, const std::vector<std::string_view>& known) {
  fail<std::invalid_argument>("{} has no field '{}'; its fields are: {}", place.where, place.name, join(known, ", "));
}

void check_is_object(const json& value, std::string_view where) {
  if (!value.is_object()) fail<std::invalid_argument>("{} must be a JSON object, got {}", where, shown(value));
}

void take(const json& json, bool& value, FieldPlace place) {
  if (!json.is_boolean()) refuse_value(place, "be true or false", json);
  value = json.get<bool>();
}

void take(const json& json, int64_t& value, FieldPlace place) {
  if (!is_int64(json)) refuse_value(place, "be an integer", json);
  value = json.get<int64_t>();
}

void take(const json& json, double& value, FieldPlace place) {
  if (!json.is_number()) refuse_value(place, "be a number", json);
  if (!std::isfinite(json.get<double>()))
    refuse_value(place, "be a finite number", fmt::format("{}", json.get<double>()));
  value = json.get<double>();
}

void take(const json& json, std::string& value, FieldPlace place) {
  if (!json.is_string()) refuse_value(place, "be text", json);
  value = json.get<std::string>();
}

void take(const json& json, std::vector<int64_t>& value, FieldPlace place) {
  if (!json.is_array() || !std::all_of(json.begin(), json.end(), is_int64)) {
    refuse_value(place, "be a list of integers", json);
  }
  value = json.get<std::vector<int64_t>>();
}

std::size_t index_in(std::span<const std::string_view> names, const json& json, FieldPlace place) {
  const auto found = json.is_string() ? std::ranges::find(names, json.get_ref<const std::string&>()) : names.end();
  if (found == names.end()) refuse_value(place, "be one of " + join(names, ", "), json);
  return static_cast<std::size_t>(found - names.begin());
}

json scalar_from_text(std::string_view text) {
  if (text == "true" || text == "false") return text == "true";
  if (const auto integer = parse_number<int64_t>(text)) return *integer;
  if (const auto number = parse_number<double>(text); number && std::isfinite(*number)) return *number;
  return text;
}

json list_from_text(std::string_view text) {
  json list = json::array();
  if (text.empty()) return list;
  for (;;) {
    const auto comma = text.find(',');
    list.push_back(scalar_from_text(text.substr(0, comma)));
    if (comma == std::string_view::npos) return list;
    text.remove_prefix(comma + 1);
  }
}

std::string text_from_json(const json& value) {
  if (value.is_null()) return "none";
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.dump();
  std::vector<std::string> items;
  for (const auto& item : value) items.push_back(text_from_json(item));
  return join(items, ",");
}

}  // namespace afm::detail
