#pragma once

// Ranks are data: a plan says which layers of a module tree are factor pairs, and of what rank. An empty plan is a
// dense model. As JSON, which a person may edit:
//   {"kind": "afm-rank-plan", "version": 1, "layers": {
//      "embedding":    {"ranks": [6, 3, 0, 1], "basis": "field"},
//      "mlp.layers.1": {"rank": 64, "activation": "none"}}}

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace afm {

// kField: every field of an embedding has its own basis. kShared: one orthonormal basis, of which field j uses the
// first k_j rows, so that inner products of fields survive in k dimensions (science.md 6.1).
enum class Basis { kField, kShared };
constexpr std::array<std::string_view, 2> enum_names(std::type_identity<Basis>) { return {"field", "shared"}; }

// Between the two factors of a linear layer. kRelu: the paper's variant, changes the function. kShiftedRelu: the same
// layer with its biases shifted so that no calibration row is cut: the function is unchanged at first (science.md 1.4).
enum class FactorActivation { kNone, kRelu, kShiftedRelu };
constexpr std::array<std::string_view, 3> enum_names(std::type_identity<FactorActivation>) {
  return {"none", "relu", "shifted_relu"};
}

struct LayerPlan {
  std::vector<int64_t> ranks = {};                        // Linear: one; Embedding: one per field [F]; 0 is a constant
  Basis basis = Basis::kField;                            // Embedding
  FactorActivation activation = FactorActivation::kNone;  // Linear
  bool operator==(const LayerPlan&) const = default;
};

// Module path ("mlp.layers.1") -> plan. A layer that is absent is dense.
using RankPlan = std::map<std::string, LayerPlan>;

// Throws FormatError for what is not a plan (unknown key, negative rank, newer version, ...).
RankPlan plan_from_json(std::string_view text);
std::string plan_to_json(const RankPlan& plan);         // indented; plan_from_json(plan_to_json(p)) == p
RankPlan read_plan(const std::filesystem::path& path);  // errors name the file
void write_plan(const std::filesystem::path& path, const RankPlan& plan);

}  // namespace afm
