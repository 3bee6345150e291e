#include <cmath>
#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "libafm/compress/layer_ranks.h"
#include "libafm/compress/statistics.h"
#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/options_json.h"
#include "libafm/core/tensors.h"
#include "libafm/core/version.h"

// Metadata: kind, version, and "statistics", a JSON object of everything that is no number in float64. Tensors,
// float64, by layer path and part:
//   <path>/count [outputs]   <path>/skipped [outputs] int64   <path>/mean.<i> [m]   <path>/scatter.<i> [m, m]
//   linear: <path>/input_mean [n], <path>/radius []           embedding: <path>/id_counts.<j> [N_j]

namespace afm {
namespace {

constexpr std::string_view kKind = "afm-statistics";

struct ModuleText {
  int64_t rows = 0, parameters = 0, parameter_bytes = 0, bytes = 0;
  bool whole_training_set = false;
};

constexpr auto field_list(std::type_identity<ModuleText>) {
  return std::make_tuple(field("rows", &ModuleText::rows, "Calibration rows."),
                         field("parameters", &ModuleText::parameters, "Of the module tree."),
                         field("parameter_bytes", &ModuleText::parameter_bytes, "Of the module tree."),
                         field("bytes", &ModuleText::bytes, "Of parameters and buffers."),
                         field("whole_training_set", &ModuleText::whole_training_set, "The rows were all there are."));
}

struct LayerText {
  bool is_embedding = false, bias = true, wide = false;
  int64_t in_features = 0, out_features = 0, embedding_dim = 0;
  std::vector<int64_t> cardinalities;
};

constexpr auto field_list(std::type_identity<LayerText>) {
  return std::make_tuple(field("is_embedding", &LayerText::is_embedding, "Else linear."),
                         field("bias", &LayerText::bias, "Of a linear layer."),
                         field("wide", &LayerText::wide, "The embedding has wide weights."),
                         field("in_features", &LayerText::in_features, "n"),
                         field("out_features", &LayerText::out_features, "m"),
                         field("embedding_dim", &LayerText::embedding_dim, "D"),
                         field("cardinalities", &LayerText::cardinalities, "Ids of each field."));
}

using nlohmann::json;

json layer_json(const LayerStatistics& layer) {
  return to_json(LayerText{layer.is_embedding, layer.bias, layer.wide, layer.in_features, layer.out_features,
                           layer.embedding_dim, layer.cardinalities});
}

void put_layer(TensorMap& tensors, const std::string& path, const LayerStatistics& layer) {
  std::vector<double> counts;
  std::vector<int64_t> skipped;
  for (std::size_t i = 0; i < layer.output.size(); ++i) {
    counts.push_back(layer.output[i].count());
    skipped.push_back(layer.output[i].skipped());
    tensors[fmt::format("{}/mean.{}", path, i)] = layer.output[i].mean();
    tensors[fmt::format("{}/scatter.{}", path, i)] = layer.output[i].scatter();
  }
  tensors[path + "/count"] = at::tensor(counts, at::kDouble);
  tensors[path + "/skipped"] = at::tensor(skipped, at::kLong);
  for (std::size_t j = 0; j < layer.id_counts.size(); ++j) {
    tensors[fmt::format("{}/id_counts.{}", path, j)] = layer.id_counts[j];
  }
  if (layer.is_embedding) return;
  tensors[path + "/input_mean"] = layer.input_mean;
  tensors[path + "/radius"] = at::scalar_tensor(layer.radius, at::kDouble);
}

// Reads the tensors of a file, each of them once and of the shape it must have.
class TensorReader {
 public:
  explicit TensorReader(const SafetensorsFile& file) : tensors_(read_tensors(file)) {}

  at::Tensor take(const std::string& name, std::vector<int64_t> shape, at::ScalarType dtype = at::kDouble) {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) fail<FormatError>("it lacks tensor '{}'", name);
    const at::Tensor tensor = found->second;
    tensors_.erase(found);
    if (tensor.scalar_type() != dtype || tensor.sizes() != at::IntArrayRef(shape)) {
      fail<FormatError>("tensor '{}' must be {} {}, got {} {}", name, at::toString(dtype),
                        c10::str(at::IntArrayRef(shape)), at::toString(tensor.scalar_type()), c10::str(tensor.sizes()));
    }
    return tensor;
  }
  void check_empty() const {
    if (!tensors_.empty()) fail<FormatError>("it has tensor '{}', which belongs to no layer", tensors_.begin()->first);
  }

 private:
  TensorMap tensors_;
};

void check_sizes(const std::string& path, const LayerStatistics& layer) {
  bool good = layer.is_embedding ? layer.embedding_dim > 0 && !layer.cardinalities.empty()
                                 : layer.in_features > 0 && layer.out_features > 0;
  for (const int64_t cardinality : layer.cardinalities) good = good && cardinality > 0;
  if (!good) fail<FormatError>("layer '{}' must have sizes of at least 1", path);
}

LayerStatistics take_layer(TensorReader& tensors, const std::string& path, const json& text_json) {
  const auto text = from_json<LayerText>(text_json, fmt::format("layer '{}'", path));
  LayerStatistics layer;
  layer.is_embedding = text.is_embedding;
  layer.bias = text.bias;
  layer.wide = text.wide;
  layer.in_features = text.in_features;
  layer.out_features = text.out_features;
  layer.embedding_dim = text.embedding_dim;
  layer.cardinalities = text.cardinalities;
  check_sizes(path, layer);
  const int64_t outputs = rank_count(layer), dim = layer.is_embedding ? layer.embedding_dim : layer.out_features;
  const at::Tensor counts = tensors.take(path + "/count", {outputs});
  const at::Tensor skipped = tensors.take(path + "/skipped", {outputs}, at::kLong);
  for (int64_t i = 0; i < outputs; ++i) {
    layer.output.emplace_back(counts[i].item<double>(), tensors.take(fmt::format("{}/mean.{}", path, i), {dim}),
                              tensors.take(fmt::format("{}/scatter.{}", path, i), {dim, dim}),
                              skipped[i].item<int64_t>());
    if (!layer.is_embedding) continue;
    const int64_t cardinality = layer.cardinalities[static_cast<std::size_t>(i)];
    layer.id_counts.push_back(tensors.take(fmt::format("{}/id_counts.{}", path, i), {cardinality}));
  }
  if (layer.is_embedding) return layer;
  layer.input_mean = tensors.take(path + "/input_mean", {layer.in_features});
  layer.radius = tensors.take(path + "/radius", {}).item<double>();
  if (!(layer.radius >= 0.0 && std::isfinite(layer.radius) && layer.input_mean.isfinite().all().item<bool>())) {
    fail<FormatError>("layer '{}' must have a finite radius and input mean", path);
  }
  return layer;
}

Statistics read_statistics(const SafetensorsFile& file) {
  const json parsed = json::parse(file.metadata_at("statistics"));
  const auto text = from_json<ModuleText>(parsed.at("module"), "module");
  Statistics statistics;
  statistics.rows = text.rows;
  statistics.parameters = text.parameters;
  statistics.parameter_bytes = text.parameter_bytes;
  statistics.bytes = text.bytes;
  statistics.whole_training_set = text.whole_training_set;
  statistics.unreached = parsed.at("unreached").get<std::vector<std::string>>();
  TensorReader tensors(file);
  for (const auto& [path, layer] : parsed.at("layers").items()) {
    statistics.layers[path] = take_layer(tensors, path, layer);
  }
  tensors.check_empty();
  return statistics;
}

void check_kind_and_version(const SafetensorsFile& file) {
  const auto kind = file.metadata().find("kind");
  if (kind == file.metadata().end() || kind->second != kKind) {
    fail<FormatError>("'{}' is no statistics file: its kind must be '{}', got '{}'", file.path().string(), kKind,
                      kind == file.metadata().end() ? "" : kind->second);
  }
  const std::string& version = file.metadata_at("version");
  if (version != std::to_string(kFormatVersion)) {
    fail<FormatError>("'{}' has version {}, this libafm reads {}; upgrade", file.path().string(), version,
                      kFormatVersion);
  }
}

}  // namespace

void Statistics::save(const std::filesystem::path& path) const {
  TensorMap tensors;
  json text = {{"module", to_json(ModuleText{rows, parameters, parameter_bytes, bytes, whole_training_set})},
               {"unreached", unreached},
               {"layers", json::object()}};
  for (const auto& [name, layer] : layers) {
    text["layers"][name] = layer_json(layer);
    put_layer(tensors, name, layer);
  }
  save_tensors(path,
               {{"kind", std::string(kKind)}, {"version", std::to_string(kFormatVersion)}, {"statistics", text.dump()}},
               tensors);
}

Statistics Statistics::load(const std::filesystem::path& path) {
  const auto file = SafetensorsFile::open(path);
  check_kind_and_version(file);
  file.verify();
  // What the pieces refuse, with the file's name.
  const auto refuse = [&](const std::exception& error) {
    fail<FormatError>("'{}' has bad statistics: {}", path.string(), error.what());
  };
  try {
    return read_statistics(file);
  } catch (const FormatError& error) {
    refuse(error);
  } catch (const std::invalid_argument& error) {
    refuse(error);
  } catch (const json::exception& error) {
    refuse(error);
  }
  return {};
}

}  // namespace afm
