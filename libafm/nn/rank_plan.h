#pragma once

// Ranks are data: a plan says which layers of a module tree are factor pairs, of what rank, and how their numbers are
// stored. An empty plan is a dense model of floats. As JSON, which a person may edit (what is left out has its
// default):
//   {"kind": "afm-rank-plan", "version": 1, "layers": {
//      "embedding":    {"ranks": [6, 3, 0, 1], "basis": "field", "joint": true, "bits": "int8",
//                       "tiers": [[{"rows": 100, "rank": 6}, {"rows": 900, "rank": 2}], [], [], []]},
//      "mlp.layers.1": {"rank": 64, "activation": "none"},
//      "mlp.layers.2": {"bits": "int8"}}}

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
// first k_j rows, so that inner products of fields survive in k dimensions. kNone: folded, neither basis nor offset;
// the layers behind read the latents themselves.
enum class Basis { kField, kShared, kNone };
constexpr std::array<std::string_view, 3> enum_names(std::type_identity<Basis>) { return {"field", "shared", "none"}; }

// Between the two factors of a linear layer. kRelu: the paper's variant, changes the function. kShiftedRelu: the same
// layer with its biases shifted so that no calibration row is cut: the function is unchanged at first (science.md 1.4).
enum class FactorActivation { kNone, kRelu, kShiftedRelu };
constexpr std::array<std::string_view, 3> enum_names(std::type_identity<FactorActivation>) {
  return {"none", "relu", "shifted_relu"};
}

// How the latent rows of an embedding, or the weights of a linear layer, are stored: floats, or integers times a scale.
// Basis, offset and biases stay floats.
enum class Bits { kFloat, kInt8, kInt4 };
constexpr std::array<std::string_view, 3> enum_names(std::type_identity<Bits>) { return {"float", "int8", "int4"}; }

// What one scale of the integers belongs to: a row of the matrix or table, or a column (a latent dimension of a field).
enum class ScaleBy { kRow, kColumn };
constexpr std::array<std::string_view, 2> enum_names(std::type_identity<ScaleBy>) { return {"row", "column"}; }

// A block of consecutive ids of a field. A row of a tier of rank k has the first k coordinates, the others are zero.
struct Tier {
  int64_t rows = 0;     // ids in the block, at least 1
  int64_t rank = 0;     // k of these ids, at most the rank of the tier before
  bool shared = false;  // one stored row for the whole block (the group's mean)
  bool operator==(const Tier&) const = default;
};

struct LayerPlan {
  std::vector<int64_t> ranks = {};                        // Linear: one; Embedding: one per field [F]; 0 is a constant;
                                                          // empty: dense
  Basis basis = Basis::kField;                            // Embedding
  FactorActivation activation = FactorActivation::kNone;  // Linear
  bool joint = false;                         // Embedding: wide weights are decoded from the latents like the values
  std::vector<std::vector<Tier>> tiers = {};  // Embedding: empty, or [F] lists; a list is empty (one tier of rank k_j)
                                              // or covers all ids of the field in order, its first rank being k_j
  Bits bits = Bits::kFloat;                   // also of a dense layer
  ScaleBy scale = ScaleBy::kRow;              // without effect on floats
  int64_t units = 0;                          // hidden layer of an Mlp: an instruction to factorize() to keep so many
                                              // units; 0: all. Never a property of a layer
  bool operator==(const LayerPlan&) const = default;
};

// Module path ("mlp.layers.1") -> plan. A layer that is absent is dense, of floats.
using RankPlan = std::map<std::string, LayerPlan>;

// Throws FormatError for what is not a plan (unknown key, negative rank, newer version, ...).
RankPlan plan_from_json(std::string_view text);
std::string plan_to_json(const RankPlan& plan);         // indented; plan_from_json(plan_to_json(p)) == p
RankPlan read_plan(const std::filesystem::path& path);  // errors name the file
void write_plan(const std::filesystem::path& path, const RankPlan& plan);

}  // namespace afm
