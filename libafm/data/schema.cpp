#include "libafm/data/schema.h"

#include <cmath>
#include <limits>
#include <set>

#include "libafm/core/atomic_file.h"
#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/hash.h"
#include "libafm/core/json_text.h"
#include "libafm/core/options_json.h"

namespace afm {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMaxIds = std::numeric_limits<int32_t>::max();  // ids travel as int32
constexpr int64_t kMaxSlots = 65536;

// Names and separators come from C++ too, where nothing has checked their encoding.
std::string dump(const auto& json, int indent = -1) {
  try {
    return json.dump(indent);
  } catch (const nlohmann::json::type_error&) {
    fail<DataError>("a schema must be UTF-8 text, got {}",
                    json.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace));
  }
}

std::string field_keys() {
  std::string keys;
  FieldSpec spec;
  for_each_field(spec, [&](std::string_view name, const auto&, std::string_view) {
    keys += (keys.empty() ? "" : ", ") + std::string(name);
  });
  return keys;
}

bool is_field_key(std::string_view key) {
  bool found = false;
  FieldSpec spec;
  for_each_field(spec, [&](std::string_view name, const auto&, std::string_view) { found |= name == key; });
  return found;
}

void check_range(const FieldSpec& spec, std::string_view key, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    fail<DataError>("field '{}': {} must be in [{}, {}], got {}", spec.name, key, low, high, value);
  }
}

void check_field(const FieldSpec& spec) {
  check_range(spec, "cardinality", spec.cardinality, 0, kMaxIds);
  check_range(spec, "min_count", spec.min_count, 1, std::numeric_limits<int64_t>::max());
  check_range(spec, "hash_buckets", spec.hash_buckets, 0, kMaxIds - 1);
  check_range(spec, "max_values", spec.max_values, 0, kMaxSlots);
  if (spec.separator.empty()) fail<DataError>("field '{}': separator must not be empty", spec.name);
  if (!std::isfinite(spec.fill)) fail<DataError>("field '{}': fill must be finite, got {}", spec.name, spec.fill);
  if (!std::isfinite(spec.mean)) fail<DataError>("field '{}': mean must be finite, got {}", spec.name, spec.mean);
  if (!std::isfinite(spec.scale) || spec.scale <= 0) {
    fail<DataError>("field '{}': scale must be finite and above 0, got {}", spec.name, spec.scale);
  }
}

void check_schema(const Schema& schema) {
  if (schema.label.empty()) fail<DataError>("label must name a column");
  if (schema.fields.empty()) fail<DataError>("fields must name at least one column");
  std::set<std::string> seen = {schema.label};
  for (const auto& spec : schema.fields) {
    if (spec.name.empty()) fail<DataError>("every field must have a name");
    if (!seen.insert(spec.name).second) fail<DataError>("field '{}' is named twice", spec.name);
    check_field(spec);
  }
}

FieldSpec field_from_json(const nlohmann::json& json) {
  if (!json.is_object()) fail<DataError>("every field must be an object, got {}", shown(json));
  const auto name = json.contains("name") && json["name"].is_string() ? json["name"].get<std::string>() : "";
  for (const auto& [key, value] : json.items()) {
    if (!is_field_key(key)) fail<DataError>("field '{}': unknown key '{}'; keys are: {}", name, key, field_keys());
  }
  return from_json<FieldSpec>(json, fmt::format("field '{}'", name));
}

Json field_to_json(const FieldSpec& spec) {
  const auto all = to_json(spec), defaults = to_json(FieldSpec{});
  // Compared as text: -0.0 equals 0.0, but a schema that comes back must have the same fingerprint.
  const auto differs = [&](const std::string& key) { return dump(all[key]) != dump(defaults[key]); };
  Json shown;
  for_each_field(spec, [&](std::string_view name, const auto&, std::string_view) {
    const std::string key(name);
    if (key == "name" || key == "kind" || differs(key)) shown[key] = all[key];
  });
  return shown;
}

Schema parse(std::string_view text) {
  const auto json = parse_json(text);
  if (!json.is_object()) fail<DataError>("a schema must be an object with \"label\" and \"fields\"");
  Schema schema;
  for (const auto& [key, value] : json.items()) {
    if (key == "label" && value.is_string()) {
      schema.label = value.get<std::string>();
    } else if (key == "fields" && value.is_array()) {
      for (const auto& item : value) schema.fields.push_back(field_from_json(item));
    } else if (key == "label" || key == "fields") {
      fail<DataError>("\"{}\" must be {}, got {}", key, key == "label" ? "a text" : "a list", shown(value));
    } else {
      fail<DataError>("unknown key '{}'; keys are: label, fields", key);
    }
  }
  check_schema(schema);
  return schema;
}

}  // namespace

std::vector<std::string> Schema::id_field_names() const {
  std::vector<std::string> names;
  for (const auto& spec : fields) {
    if (spec.has_ids()) names.push_back(spec.name);
  }
  return names;
}

std::vector<int64_t> Schema::cardinalities() const {
  std::vector<int64_t> sizes;
  for (const auto& spec : fields) {
    if (spec.has_ids()) sizes.push_back(spec.cardinality);
  }
  return sizes;
}

std::vector<int64_t> Schema::slots() const {
  std::vector<int64_t> slots;
  for (const auto& spec : fields) {
    if (spec.has_ids()) slots.push_back(spec.slots());
  }
  return slots;
}

int64_t Schema::slot_count() const {
  int64_t count = 0;
  for (const auto& spec : fields) count += spec.slots();
  return count;
}

int64_t Schema::dense_count() const {
  int64_t count = 0;
  for (const auto& spec : fields) count += spec.has_ids() ? 0 : 1;
  return count;
}

std::string Schema::fingerprint() const {
  auto meaning = nlohmann::json::array();
  for (const auto& spec : fields) {
    auto json = to_json(spec);
    json.erase("min_count");  // decided what was counted, says nothing about an encoded row
    meaning.push_back(std::move(json));
  }
  return hex_hash_of(dump(meaning));
}

Schema schema_from_json(std::string_view text) {
  try {
    return parse(text);
  } catch (const nlohmann::json::exception& error) {
    fail<DataError>("not JSON: {}", error.what());
  } catch (const std::invalid_argument& error) {
    fail<DataError>("{}", error.what());
  }
}

std::string schema_to_json(const Schema& schema) {
  Json json;
  json["label"] = schema.label;
  json["fields"] = Json::array();
  for (const auto& spec : schema.fields) json["fields"].push_back(field_to_json(spec));
  return dump(json, 2) + "\n";
}

Schema read_schema(const std::filesystem::path& path) {
  const auto text = read_text_file(path);
  try {
    return schema_from_json(text);
  } catch (const DataError& error) {
    fail<DataError>("{}: {}", path.string(), error.what());
  }
}

void write_schema(const std::filesystem::path& path, const Schema& schema) {
  write_text_file(path, schema_to_json(schema));
}

void check_counted(const Schema& schema) {
  check_schema(schema);
  for (const auto& spec : schema.fields) {
    if (!spec.has_ids()) continue;
    check_range(spec, "cardinality", spec.cardinality, 1, kMaxIds);
    check_range(spec, "max_values", spec.slots(), 1, kMaxSlots);
    if (spec.hash_buckets > 0 && spec.cardinality != spec.hash_buckets + 1) {
      fail<DataError>("field '{}': cardinality must be hash_buckets + 1 = {}, got {}", spec.name, spec.hash_buckets + 1,
                      spec.cardinality);
    }
  }
}

}  // namespace afm
