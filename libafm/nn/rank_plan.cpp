#include "libafm/nn/rank_plan.h"

#include <optional>
#include <stdexcept>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "libafm/core/atomic_file.h"
#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/fields.h"
#include "libafm/core/json_text.h"
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

struct TierText {
  int64_t rows = 0, rank = 0;
  bool shared = false;
};

constexpr auto field_list(std::type_identity<TierText>) {
  return std::make_tuple(field("rows", &TierText::rows, "Ids in the block."),
                         field("rank", &TierText::rank, "Of these ids."),
                         field("shared", &TierText::shared, "One stored row for the whole block."));
}

// A layer as it is written: a linear layer has `rank`, an embedding `ranks`; a dense layer of integers has neither.
struct LayerText {
  std::optional<int64_t> rank = std::nullopt;
  std::vector<int64_t> ranks;
  Basis basis = Basis::kField;
  FactorActivation activation = FactorActivation::kNone;
  bool joint = false;
  std::string tiers;  // JSON of its own: options have no lists of lists
  Bits bits = Bits::kFloat;
  ScaleBy scale = ScaleBy::kRow;
  int64_t units = 0;
};

constexpr auto field_list(std::type_identity<LayerText>) {
  return std::make_tuple(field("rank", &LayerText::rank, "Rank of a linear layer."),
                         field("ranks", &LayerText::ranks, "Ranks of an embedding, one per field."),
                         field("basis", &LayerText::basis, "Of an embedding."),
                         field("activation", &LayerText::activation, "Between the factors of a linear layer."),
                         field("joint", &LayerText::joint, "Wide weights of an embedding come from the latents."),
                         field("tiers", &LayerText::tiers, "Of an embedding, one list of tiers per field."),
                         field("bits", &LayerText::bits, "Of the weights or latents."),
                         field("scale", &LayerText::scale, "What a scale of integers belongs to."),
                         field("units", &LayerText::units, "Units of a hidden layer to keep; 0 = all."));
}

std::vector<std::vector<Tier>> tiers_from_json(const std::string& where, const nlohmann::json& json) {
  std::vector<std::vector<Tier>> tiers;
  const auto refuse = [&] {
    fail<FormatError>("{}.tiers must be one list of tiers per field, got {}", where, shown(json));
  };
  if (!json.is_array()) refuse();
  for (const auto& field : json) {
    if (!field.is_array()) refuse();
    tiers.emplace_back();
    for (const auto& tier : field) {
      const auto text = from_json<TierText>(tier, where + ".tiers");
      tiers.back().push_back({.rows = text.rows, .rank = text.rank, .shared = text.shared});
    }
  }
  return tiers;
}

void check_counts(const std::string& where, const LayerPlan& plan) {
  for (const int64_t rank : plan.ranks) {
    if (rank < 0) fail<FormatError>("{} must have ranks of at least 0, got {}", where, rank);
  }
  for (const auto& field : plan.tiers) {
    for (const Tier& tier : field) {
      if (tier.rows < 1) fail<FormatError>("{} must have tiers of at least 1 row, got {}", where, tier.rows);
      if (tier.rank < 0) fail<FormatError>("{} must have tiers of at least rank 0, got {}", where, tier.rank);
    }
  }
  if (plan.units < 0) fail<FormatError>("{} must have units of at least 0, got {}", where, plan.units);
}

LayerPlan layer_from_json(const std::string& name, const nlohmann::json& json) {
  const std::string where = fmt::format("layer '{}'", name);
  nlohmann::json flat = json;
  std::vector<std::vector<Tier>> tiers;
  if (json.is_object() && json.contains("tiers")) {
    tiers = tiers_from_json(where, json["tiers"]);
    flat["tiers"] = "";
  }
  const auto text = from_json<LayerText>(flat, where);
  const bool dense = json.contains("bits") || json.contains("units");
  const bool linear = text.rank.has_value(), embedding = json.contains("ranks");
  if ((linear && embedding) || (!linear && !embedding && !dense)) {
    fail<FormatError>("{} must have either rank or ranks, got {}", where, shown(json));
  }
  LayerPlan plan{.ranks = text.ranks,
                 .basis = text.basis,
                 .activation = text.activation,
                 .joint = text.joint,
                 .tiers = std::move(tiers),
                 .bits = text.bits,
                 .scale = text.scale,
                 .units = text.units};
  if (linear) plan.ranks = {*text.rank};
  check_counts(where, plan);
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
  const auto json = parse_json(text);
  if (!json.is_object()) fail<FormatError>("it must be a JSON object, got {}", shown(json));
  check_header(json);
  const auto layers = json.find("layers");
  if (layers == json.end() || !layers->is_object()) fail<FormatError>("layers must be an object of layer names");
  RankPlan plan;
  for (const auto& [name, layer] : layers->items()) plan[name] = layer_from_json(name, layer);
  return plan;
}

nlohmann::ordered_json tiers_to_json(const std::vector<std::vector<Tier>>& tiers) {
  auto json = nlohmann::ordered_json::array();
  for (const auto& field : tiers) {
    json.push_back(nlohmann::ordered_json::array());
    for (const Tier& tier : field) {
      nlohmann::ordered_json one{{"rows", tier.rows}, {"rank", tier.rank}};
      if (tier.shared) one["shared"] = true;
      json.back().push_back(std::move(one));
    }
  }
  return json;
}

// In the order that a reader expects, which a sorted JSON object has not.
std::string layer_to_json(const LayerPlan& plan) {
  nlohmann::ordered_json json;
  const LayerPlan plain;
  const bool embedding = plan.basis != plain.basis || plan.joint || !plan.tiers.empty();
  const bool linear = plan.ranks.size() == 1 && !embedding;
  const bool dense = plan.ranks.empty() && !embedding && (plan.bits != plain.bits || plan.units != plain.units);
  if (linear) {
    json["rank"] = plan.ranks[0];
  } else if (!dense) {
    json["ranks"] = plan.ranks;
    json["basis"] = name_of(plan.basis);
  }
  if (linear || plan.activation != plain.activation) json["activation"] = name_of(plan.activation);
  if (plan.joint) json["joint"] = true;
  if (!plan.tiers.empty()) json["tiers"] = tiers_to_json(plan.tiers);
  if (plan.bits != plain.bits) json["bits"] = name_of(plan.bits);
  if (plan.scale != plain.scale) json["scale"] = name_of(plan.scale);
  if (plan.units != plain.units) json["units"] = plan.units;
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
