#pragma once

// Model files: safetensors whose metadata states kind ("afm-model"), version, model ("deepfm"), options, schema, ranks.
// Which class a name means is decided in models/ (load_model).
//
// The tensors are parameters and buffers by path. A parameter of a layer whose plan has bits "int8" or "int4" is two
// tensors instead. Its n elements are the row-major matrix (Linear `weight`, `down`, `up`), the flat table (Embedding
// `latent`) or the row-major table (Embedding `weight`), see their headers:
//   <path>.codes   int8   I8 [n]            in [-127, 127]
//                  int4   U8 [(n + 1) / 2]  in [-7, 7], two's complement; element 2i in the low four bits of byte i,
//                                           element 2i + 1 in the high four; the last four bits are 0 when n is odd
//   <path>.scale   BF16 [groups]            the value of an element is its code times the scale of its group, which is
//                                           exact in float32
// Groups of a matrix [m, n]: "scale": "row" m, one per row; "column" n, one per column; none when it has no elements.
// Groups of an embedding, in order:
//   "row"      one per stored row (a shared tier stores one), as the rows lie in the table; none in a tier of rank 0
//   "column"   k_j per field (dense: D), one per coordinate, for all tiers of the field
//   behind either, when the table stores wide weights: F, one per field, for the wide weights of its rows
//
// Beside the model's own tensors a file holds "golden.*", rows with the logits that the model gives them
// (nn/golden_rows.h), and once it is packed "vocabulary.*", the encoder (serve/vocabulary.h).

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
  TensorMap tensors;  // the model's, as stored, CPU; load_state() takes them
  TensorMap golden;   // golden.ids, golden.dense, golden.logits; empty in an older file
};

// Atomic. The model may live on any device; it computes the golden rows, so no other thread may use it meanwhile.
// Throws std::invalid_argument for a model with a tensor whose path begins like golden rows or a vocabulary.
void save_model(const Model& model, const std::filesystem::path& path);
// Verifies the checksum. Throws FormatError (damaged, foreign, newer) or IoError.
ModelFile read_model_file(const std::filesystem::path& path);

// The parameters and buffers of a module tree by path. The tensors are the module's own, not copies.
TensorMap state_of(const torch::nn::Module& module);
// Copies values into the module's own tensors. `state` may hold the floats of an integer parameter, or its codes and
// scale. Throws FormatError that lists every missing, surplus and misshapen name.
void load_state(torch::nn::Module& module, const TensorMap& state, std::string_view where);

}  // namespace afm
