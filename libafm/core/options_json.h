#pragma once

// Private: options structs to and from JSON, and single fields from text, all driven by field_list() (fields.h).

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "libafm/core/fields.h"

namespace afm {

struct FieldText {
  std::string name, type, value, doc;  // type: "integer", "number", "boolean", "text", "integers", or "a|b|c"
};

// {"embedding_dim": 10, "hidden": [400, 400], ...}: every field, defaults included.
template <HasFields Options>
nlohmann::json to_json(const Options& options);

// Starts from the defaults and takes what `json` holds. `where` names the struct in errors ("DeepFMOptions").
// Throws std::invalid_argument for an unknown field (listing the known ones) and for a value of the wrong type.
template <HasFields Options>
Options from_json(const nlohmann::json& json, std::string_view where);

// Sets one field from command line text: "400,400,400", "true", "0.2", "vector", "none" for an empty optional.
// Returns false when there is no field of that name. Throws std::invalid_argument when the text does not parse.
template <HasFields Options>
bool set_from_text(Options& options, std::string_view name, std::string_view text, std::string_view where);

// Name, type, value and documentation of every field, for --help and repr.
template <HasFields Options>
std::vector<FieldText> describe(const Options& options);

}  // namespace afm

#include "libafm/core/options_json.inl"
