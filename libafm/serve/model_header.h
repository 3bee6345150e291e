#pragma once

// Private: what the metadata of a model file says, checked.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "libafm/core/fields.h"
#include "libafm/core/safetensors.h"
#include "libafm/data/schema.h"
#include "libafm/nn/rank_plan.h"

namespace afm::serve {

enum class ModelKind { kDeepFM, kDCN, kWideDeep };
constexpr std::array<std::string_view, 3> enum_names(std::type_identity<ModelKind>) {
  return {"deepfm", "dcn", "wide_deep"};
}

enum class CrossForm { kVector, kMatrix };
constexpr std::array<std::string_view, 2> enum_names(std::type_identity<CrossForm>) { return {"vector", "matrix"}; }

enum class InteractionSpace { kDecoded, kLatent };
constexpr std::array<std::string_view, 2> enum_names(std::type_identity<InteractionSpace>) {
  return {"decoded", "latent"};
}

// The options of all models in one; models/ documents them.
struct ModelOptions {
  int64_t embedding_dim = 16;
  std::vector<int64_t> hidden = {400, 400, 400};
  bool batch_norm = true;
  double dropout = 0.0;
  double init_std = 1e-4;
  InteractionSpace interaction = InteractionSpace::kDecoded;
  int64_t cross_layers = 3;
  CrossForm cross = CrossForm::kVector;
};

constexpr auto field_list(std::type_identity<ModelOptions>) {
  return std::make_tuple(field("embedding_dim", &ModelOptions::embedding_dim, "Width D of the embeddings."),
                         field("hidden", &ModelOptions::hidden, "Widths of the hidden layers."),
                         field("batch_norm", &ModelOptions::batch_norm, "Batch norm after each hidden layer."),
                         field("dropout", &ModelOptions::dropout, "Without effect on scores."),
                         field("init_std", &ModelOptions::init_std, "Without effect on scores."),
                         field("interaction", &ModelOptions::interaction, "Where the fields of a folded DeepFM meet."),
                         field("cross_layers", &ModelOptions::cross_layers, "Layers of DCN's cross network."),
                         field("cross", &ModelOptions::cross, "Form of DCN's cross network."));
}

struct ModelHeader {
  ModelKind kind = ModelKind::kDeepFM;
  ModelOptions options;
  Schema schema;  // counted, with a field that has ids
  RankPlan plan;

  const LayerPlan& plan_of(const std::string& layer) const;  // the default for a layer that it does not name
};

// Throws FormatError that names the file.
ModelHeader read_model_header(const SafetensorsFile& file);

}  // namespace afm::serve
