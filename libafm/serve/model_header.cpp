#include "libafm/serve/model_header.h"

#include <charconv>
#include <optional>
#include <stdexcept>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/json_text.h"
#include "libafm/core/options_json.h"
#include "libafm/core/version.h"

namespace afm::serve {
namespace {

constexpr std::string_view kModelFileKind = "afm-model";
// No width is that large; sizes that are sums and products of a few widths cannot overflow.
constexpr int64_t kMaxWidth = int64_t{1} << 24;
constexpr int64_t kMaxSlots = int64_t{1} << 20;

void check_kind(const SafetensorsFile& file) {
  const std::string& kind = file.metadata_at("kind");
  if (kind != kModelFileKind) fail<FormatError>("its kind must be '{}', got '{}'", kModelFileKind, kind);
}

void check_version(const SafetensorsFile& file) {
  const std::string& text = file.metadata_at("version");
  int64_t version = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), version);
  if (error != std::errc{} || stop != text.data() + text.size() || version < 1) {
    fail<FormatError>("its version must be a number from 1, got '{}'", text);
  }
  if (version > kFormatVersion) {
    fail<FormatError>("its version {} was written by a newer libafm; this one reads up to {}; upgrade", version,
                      kFormatVersion);
  }
}

ModelKind kind_named(const std::string& name) {
  constexpr auto names = enum_names(std::type_identity<ModelKind>{});
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (name == names[i]) return static_cast<ModelKind>(i);
  }
  fail<FormatError>("there is no model '{}'; the models are: {}", name, detail::join(names, ", "));
}

// `least` is 1, or 0 where the width may be absent.
void check_width(const char* name, int64_t width, int64_t least) {
  if (width >= least && width <= kMaxWidth) return;
  fail<FormatError>("its option {} must be in [{}, {}], got {}", name, least, kMaxWidth, width);
}

nlohmann::json parsed(std::string_view text) {
  try {
    return parse_json(text);
  } catch (const nlohmann::json::exception&) {
    fail<FormatError>("its options are not JSON");
  }
}

ModelOptions read_options(const std::string& text) {
  const auto options = from_json<ModelOptions>(parsed(text), "options");
  check_width("embedding_dim", options.embedding_dim, 1);
  check_width("cross_layers", options.cross_layers, 1);
  for (const int64_t width : options.hidden) check_width("hidden", width, 1);
  return options;
}

Schema read_model_schema(const std::string& text) {
  Schema schema = schema_from_json(text);
  check_counted(schema);
  if (schema.cardinalities().empty()) fail<FormatError>("its schema has no categorical or multi-valued field");
  if (schema.slot_count() > kMaxSlots)
    fail<FormatError>("its rows have {} slots, at most {} are read", schema.slot_count(), kMaxSlots);
  return schema;
}

ModelHeader read(const SafetensorsFile& file) {
  check_kind(file);
  check_version(file);
  return {.kind = kind_named(file.metadata_at("model")),
          .options = read_options(file.metadata_at("options")),
          .schema = read_model_schema(file.metadata_at("schema")),
          .plan = plan_from_json(file.metadata_at("ranks"))};
}

}  // namespace

const LayerPlan& ModelHeader::plan_of(const std::string& layer) const {
  static const LayerPlan kDense;
  const auto found = plan.find(layer);
  return found == plan.end() ? kDense : found->second;
}

ModelHeader read_model_header(const SafetensorsFile& file) {
  try {
    return read(file);
  } catch (const Error& error) {
    fail<FormatError>("'{}' is no model file that can be scored: {}", file.path().string(), error.what());
  } catch (const std::invalid_argument& error) {
    fail<FormatError>("'{}' is no model file that can be scored: {}", file.path().string(), error.what());
  }
}

}  // namespace afm::serve
