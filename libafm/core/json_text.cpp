#include "libafm/core/json_text.h"

#include <charconv>
#include <stdexcept>
#include <utility>

#include "libafm/core/fail.h"

namespace afm {
namespace {

constexpr std::size_t kMostNested = 64;  // what follows a value by recursion must not run out of stack

std::string shown_text(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted +=
        static_cast<unsigned char>(c) < ' ' ? fmt::format("\\u{:04x}", static_cast<unsigned>(c)) : std::string(1, c);
  }
  return quoted + '"';
}

std::string shown_number(double number) {
  char digits[32];
  std::string text(digits, std::to_chars(digits, digits + sizeof(digits), number).ptr);
  return text.find_first_not_of("-0123456789") == std::string::npos ? text + ".0" : text;
}

std::string shown_items(const nlohmann::json& value) {
  std::string text;
  for (const auto& [key, item] : value.items()) {
    if (!text.empty()) text += ',';
    if (value.is_object()) text += shown_text(key) + ':';
    text += shown(item);
  }
  return text;
}

}  // namespace

// json::sax_parse() would bring nlohmann's readers of five binary formats along.
void read_json(std::string_view text, JsonEvents& events) {
  auto input = nlohmann::detail::input_adapter(text);
  nlohmann::detail::parser<nlohmann::json, decltype(input)>(std::move(input)).sax_parse(&events);
}

nlohmann::json JsonBuilder::build(std::string_view text) {
  read_json(text, *this);
  return std::move(root_);
}

void JsonBuilder::check_depth(std::size_t depth) {
  if (depth >= kMostNested) fail<std::invalid_argument>("JSON must nest at most {} deep", kMostNested);
}

bool JsonBuilder::key(string_t& name) {
  check_key(*open_.back(), name);
  key_ = std::move(name);
  return true;
}

bool JsonBuilder::parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) {
  if (const auto* syntax = dynamic_cast<const nlohmann::json::parse_error*>(&error)) throw *syntax;
  throw error;
}

nlohmann::json& JsonBuilder::put(nlohmann::json value) {
  if (open_.empty()) return root_ = std::move(value);
  nlohmann::json& parent = *open_.back();
  if (parent.is_object()) return parent[key_] = std::move(value);
  parent.push_back(std::move(value));
  return parent.back();
}

bool JsonBuilder::open(nlohmann::json::value_t kind) {
  check_depth(open_.size());
  open_.push_back(&put(kind));
  return true;
}

bool JsonBuilder::close() {
  open_.pop_back();
  return true;
}

// nlohmann's own printer is 10 kB.
std::string shown(const nlohmann::json& value) {
  switch (value.type()) {
    case nlohmann::json::value_t::boolean:
      return value.get<bool>() ? "true" : "false";
    case nlohmann::json::value_t::number_integer:
      return std::to_string(value.get<int64_t>());
    case nlohmann::json::value_t::number_unsigned:
      return std::to_string(value.get<uint64_t>());
    case nlohmann::json::value_t::number_float:
      return shown_number(value.get<double>());
    case nlohmann::json::value_t::string:
      return shown_text(value.get_ref<const std::string&>());
    case nlohmann::json::value_t::array:
      return '[' + shown_items(value) + ']';
    case nlohmann::json::value_t::object:
      return '{' + shown_items(value) + '}';
    default:
      return "null";
  }
}

nlohmann::json parse_json(std::string_view text) { return JsonBuilder().build(text); }

}  // namespace afm
