#pragma once

// Model files: safetensors whose metadata states kind ("afm-model"), version, model ("deepfm"), options, schema, ranks.
// Which class a name means is decided in models/ (load_model).

#include <filesystem>
#include <string>

#include "libafm/core/tensors.h"
#include "libafm/nn/model.h"

namespace afm {

struct ModelFile {
  std::string model;  // "deepfm"
  std::string options_json;
  Schema schema;
  RankPlan plan;
  std::map<std::string, std::string> notes;
  TensorMap tensors;  // parameters and buffers by path, CPU
};

// Atomic. The model may live on any device.
void save_model(const Model& model, const std::filesystem::path& path);
// Verifies the checksum. Throws FormatError (damaged, foreign, newer) or IoError.
ModelFile read_model_file(const std::filesystem::path& path);

// The parameters and buffers of a module tree by path. The tensors are the module's own, not copies.
TensorMap state_of(const torch::nn::Module& module);
// Copies values into the module's own tensors. Throws FormatError that lists every missing, surplus and misshapen name.
void load_state(torch::nn::Module& module, const TensorMap& state, std::string_view where);

}  // namespace afm
