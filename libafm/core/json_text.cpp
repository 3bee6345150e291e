#include "libafm/core/json_text.h"

#include <utility>

namespace afm {

// json::sax_parse() would bring nlohmann's readers of five binary formats along.
void read_json(std::string_view text, JsonEvents& events) {
  auto input = nlohmann::detail::input_adapter(text);
  nlohmann::detail::parser<nlohmann::json, decltype(input)>(std::move(input)).sax_parse(&events);
}

nlohmann::json JsonBuilder::build(std::string_view text) {
  read_json(text, *this);
  return std::move(root_);
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

nlohmann::json parse_json(std::string_view text) { return JsonBuilder().build(text); }

}  // namespace afm
