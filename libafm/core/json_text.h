#pragma once

// Private: JSON text to values, with one parser for all readers: each that nlohmann instantiates is 10 kB of a small
// library.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

namespace afm {

using JsonEvents = nlohmann::json_sax<nlohmann::json>;

// Tells `events` what the text holds, until one of them returns false or throws.
void read_json(std::string_view text, JsonEvents& events);

// Builds the value of a text. Throws nlohmann::json::exception: a parse_error, or a number out of range; and
// std::invalid_argument where it nests too deep.
class JsonBuilder : public JsonEvents {
 public:
  nlohmann::json build(std::string_view text);

  bool null() override { return put(nullptr), true; }
  bool boolean(bool value) override { return put(value), true; }
  bool number_integer(number_integer_t value) override { return put(value), true; }
  bool number_unsigned(number_unsigned_t value) override { return put(value), true; }
  bool number_float(number_float_t value, const string_t&) override { return put(value), true; }
  bool string(string_t& value) override { return put(std::move(value)), true; }
  bool binary(binary_t&) override { return false; }  // JSON text has none
  bool start_object(std::size_t) override { return open(nlohmann::json::value_t::object); }
  bool start_array(std::size_t) override { return open(nlohmann::json::value_t::array); }
  bool key(string_t& name) override;
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override;

 protected:
  // What a format may refuse, by throwing: a list or object within `depth` others, beyond 64 if it does not say; a key
  // of the object so far.
  virtual void check_depth(std::size_t depth);
  virtual void check_key(const nlohmann::json& /*object*/, const std::string& /*key*/) {}

 private:
  nlohmann::json& put(nlohmann::json value);
  bool open(nlohmann::json::value_t kind);
  bool close();

  nlohmann::json root_;
  std::vector<nlohmann::json*> open_;  // lists and objects, the innermost last
  std::string key_;
};

nlohmann::json parse_json(std::string_view text);  // JsonBuilder's, without further rules

// A value in one line, for the errors that show it.
std::string shown(const nlohmann::json& value);

}  // namespace afm
