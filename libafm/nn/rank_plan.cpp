#include "libafm/nn/rank_plan.h"

#include <optional>
#include <stdexcept>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "libafm/core/atomic_file.h"
#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/fields.h"
#include "libafm/core/options_json.h"
#include "libafm/core/version.h"

namespace afm {
namespace {

constexpr std::string_view kPlanKind = "afm-rank-plan";

struct PlanHeader {
  std::string kind;
  int64_t version = 0;
};

constexpr auto field_list(std::type_identity<PlanHeader>) {
  return std::make_tuple(field("kind", &PlanHeader::kind, "Always afm-rank-plan."),
                         field("version", &PlanHeader::version, "Of the format."));
}

// A layer as it is written: a linear layer has `rank`, an embedding `ranks`.
struct LayerText {
  std::optional<int64_t> rank = std::nullopt;
  std::vector<int64_t> ranks;
  Basis basis = Basis::kField;
  FactorActivation activation = FactorActivation::kNone;
};

constexpr auto field_list(std::type_identity<LayerText>) {
  return std::make_tuple(field("rank", &LayerText::rank, "Rank of a linear layer."),
                         field("ranks", &LayerText::ranks, "Ranks of an embedding, one per field."),
                         field("basis", &LayerText::basis, "Of an embedding."),
                         field("activation", &LayerText::activation, "Between the factors of a linear layer."));
}

LayerPlan layer_from_json(const std::string& name, const nlohmann::json& json) {
  const std::string where = fmt::format("layer '{}'", name);
  const auto text = from_json<LayerText>(json, where);
  if (text.rank.has_value() == json.contains("ranks")) {
    fail<FormatError>("{} must have either rank or ranks, got {}", where, json.dump());
  }
  LayerPlan plan{text.ranks, text.basis, text.activation};
  if (text.rank) plan.ranks = {*text.rank};
  for (const int64_t rank : plan.ranks) {
    if (rank < 0) fail<FormatError>("{} must have ranks of at least 0, got {}", where, rank);
  }
  return plan;
}

void check_header(nlohmann::json json) {
  json.erase("layers");
  const auto header = from_json<PlanHeader>(json, "a rank plan");
  if (header.kind != kPlanKind) fail<FormatError>("kind must be '{}', got '{}'", kPlanKind, header.kind);
  if (header.version > kFormatVersion) {
    fail<FormatError>("version {} was written by a newer libafm, this one reads up to {}; upgrade", header.version,
                      kFormatVersion);
  }
  if (header.version < 1) fail<FormatError>("version must be at least 1, got {}", header.version);
}

RankPlan parse_plan(std::string_view text) {
  const auto json = nlohmann::json::parse(text);
  if (!json.is_object()) fail<FormatError>("it must be a JSON object, got {}", json.dump());
  check_header(json);
  const auto layers = json.find("layers");
  if (layers == json.end() || !layers->is_object()) fail<FormatError>("layers must be an object of layer names");
  RankPlan plan;
  for (const auto& [name, layer] : layers->items()) plan[name] = layer_from_json(name, layer);
  return plan;
}

// In the order that a reader expects, which a sorted JSON object has not.
std::string layer_to_json(const LayerPlan& plan) {
  nlohmann::ordered_json json;
  const bool linear = plan.ranks.size() == 1 && plan.basis == Basis::kField;
  if (linear) {
    json["rank"] = plan.ranks[0];
  } else {
    json["ranks"] = plan.ranks;
    json["basis"] = name_of(plan.basis);
  }
  if (linear || plan.activation != FactorActivation::kNone) json["activation"] = name_of(plan.activation);
  return json.dump();
}

}  // namespace

RankPlan plan_from_json(std::string_view text) {
  try {
    return parse_plan(text);
  } catch (const nlohmann::json::exception& error) {
    fail<FormatError>("not a rank plan: {}", error.what());
  } catch (const std::invalid_argument& error) {
    fail<FormatError>("not a rank plan: {}", error.what());
  } catch (const FormatError& error) {
    fail<FormatError>("not a rank plan: {}", error.what());
  }
}

std::string plan_to_json(const RankPlan& plan) {
  // One line per layer: a person edits this, and a rank per line would hide the layers.
  std::string layers;
  for (const auto& [name, layer] : plan) {
    layers +=
        fmt::format("{}\n    {}: {}", layers.empty() ? "" : ",", nlohmann::json(name).dump(), layer_to_json(layer));
  }
  return fmt::format("{{\n  \"kind\": \"{}\",\n  \"version\": {},\n  \"layers\": {{{}{}}}\n}}\n", kPlanKind,
                     kFormatVersion, layers, layers.empty() ? "" : "\n  ");
}

RankPlan read_plan(const std::filesystem::path& path) {
  const std::string text = read_text_file(path);
  try {
    return plan_from_json(text);
  } catch (const FormatError& error) {
    fail<FormatError>("'{}' is {}", path.string(), error.what());
  }
}

void write_plan(const std::filesystem::path& path, const RankPlan& plan) { write_text_file(path, plan_to_json(plan)); }

}  // namespace afm
