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

// Metadata: kind, version, and "statistics", a JSON object of everything that is no number in float64. Tensors,
// float64, by layer path and part:
//   <path>/count [outputs]   <path>/skipped [outputs] int64   <path>/mean.<i> [m]   <path>/scatter.<i> [m, m]
//   linear: <path>/input_mean [n], <path>/radius []           embedding: <path>/id_counts.<j> [N_j]
// Since version 2, where the layer's description has it (W = D + 1 with wide weights, else D):
//   "metric": <path>/metric.<i> [m, m], of an embedding [W, W]
//   "input": <path>/input_count [], <path>/input_skipped [] int64, <path>/input_scatter [n, n]
//   "joint": <path>/joint_mean.<j> [D + 1], <path>/joint_scatter.<j> [D + 1, D + 1]; counts are those of the outputs
//   "blocks": <path>/block_ends.<j> [G] int64, <path>/block_counts.<j> [G], <path>/block_skipped.<j> [G] int64,
//             <path>/block_means.<j> [G, W], <path>/block_scatters.<j> [G, W, W]

namespace afm {
namespace {

constexpr std::string_view kKind = "afm-statistics";
constexpr int kStatisticsVersion = 2;  // reads all from 1

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
  bool metric = false, input = false, joint = false, blocks = false;
  int64_t in_features = 0, out_features = 0, embedding_dim = 0;
  std::vector<int64_t> cardinalities;
};

constexpr auto field_list(std::type_identity<LayerText>) {
  return std::make_tuple(field("is_embedding", &LayerText::is_embedding, "Else linear."),
                         field("bias", &LayerText::bias, "Of a linear layer."),
                         field("wide", &LayerText::wide, "The embedding has wide weights."),
                         field("metric", &LayerText::metric, "The metric is there."),
                         field("input", &LayerText::input, "Moments of the inputs are there."),
                         field("joint", &LayerText::joint, "Moments of embedding and wide weight are there."),
                         field("blocks", &LayerText::blocks, "Moments of blocks of ids are there."),
                         field("in_features", &LayerText::in_features, "n"),
                         field("out_features", &LayerText::out_features, "m"),
                         field("embedding_dim", &LayerText::embedding_dim, "D"),
                         field("cardinalities", &LayerText::cardinalities, "Ids of each field."));
}

using nlohmann::json;

json layer_json(const LayerStatistics& layer) {
  return to_json(LayerText{layer.is_embedding, layer.bias, layer.wide, !layer.metric.empty(), layer.input.dim() > 0,
                           !layer.joint.empty(), !layer.id_blocks.empty(), layer.in_features, layer.out_features,
                           layer.embedding_dim, layer.cardinalities});
}

void put_blocks(TensorMap& tensors, const std::string& path, std::size_t field, const std::vector<IdBlock>& blocks) {
  std::vector<int64_t> ends, skipped;
  std::vector<double> counts;
  std::vector<at::Tensor> means, scatters;
  for (const IdBlock& block : blocks) {
    ends.push_back(block.end);
    counts.push_back(block.rows.count());
    skipped.push_back(block.rows.skipped());
    means.push_back(block.rows.mean());
    scatters.push_back(block.rows.scatter());
  }
  tensors[fmt::format("{}/block_ends.{}", path, field)] = at::tensor(ends, at::kLong);
  tensors[fmt::format("{}/block_counts.{}", path, field)] = at::tensor(counts, at::kDouble);
  tensors[fmt::format("{}/block_skipped.{}", path, field)] = at::tensor(skipped, at::kLong);
  tensors[fmt::format("{}/block_means.{}", path, field)] = at::stack(means);
  tensors[fmt::format("{}/block_scatters.{}", path, field)] = at::stack(scatters);
}

void put_optional(TensorMap& tensors, const std::string& path, const LayerStatistics& layer) {
  for (std::size_t i = 0; i < layer.metric.size(); ++i) {
    tensors[fmt::format("{}/metric.{}", path, i)] = layer.metric[i];
  }
  for (std::size_t j = 0; j < layer.joint.size(); ++j) {
    tensors[fmt::format("{}/joint_mean.{}", path, j)] = layer.joint[j].mean();
    tensors[fmt::format("{}/joint_scatter.{}", path, j)] = layer.joint[j].scatter();
  }
  for (std::size_t j = 0; j < layer.id_blocks.size(); ++j) put_blocks(tensors, path, j, layer.id_blocks[j]);
  if (layer.input.dim() == 0) return;
  tensors[path + "/input_count"] = at::scalar_tensor(layer.input.count(), at::kDouble);
  tensors[path + "/input_skipped"] = at::scalar_tensor(layer.input.skipped(), at::kLong);
  tensors[path + "/input_scatter"] = layer.input.scatter();
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
  put_optional(tensors, path, layer);
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
    if (!shape.empty() && shape[0] < 0 && tensor.dim() > 0) shape[0] = tensor.size(0);  // as long as it is
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

// Ends must ascend to the field's cardinality.
void check_ends(const std::string& name, const at::Tensor& ends, int64_t cardinality) {
  int64_t begin = 0;
  for (int64_t g = 0; g < ends.size(0); ++g) {
    const int64_t end = ends[g].item<int64_t>();
    if (end <= begin) fail<FormatError>("tensor '{}' must ascend from at least 1, got {} after {}", name, end, begin);
    begin = end;
  }
  if (begin != cardinality) fail<FormatError>("tensor '{}' must end with {}, got {}", name, cardinality, begin);
}

std::vector<IdBlock> take_blocks(TensorReader& tensors, const std::string& path, std::size_t field, int64_t cardinality,
                                 int64_t width) {
  const std::string name = fmt::format("{}/block_ends.{}", path, field);
  const at::Tensor ends = tensors.take(name, {-1}, at::kLong);
  check_ends(name, ends, cardinality);
  const int64_t count = ends.size(0);
  const at::Tensor counts = tensors.take(fmt::format("{}/block_counts.{}", path, field), {count});
  const at::Tensor skipped = tensors.take(fmt::format("{}/block_skipped.{}", path, field), {count}, at::kLong);
  const at::Tensor means = tensors.take(fmt::format("{}/block_means.{}", path, field), {count, width});
  const at::Tensor scatters = tensors.take(fmt::format("{}/block_scatters.{}", path, field), {count, width, width});
  std::vector<IdBlock> blocks;
  int64_t begin = 0;
  for (int64_t g = 0; g < count; ++g) {
    const int64_t end = ends[g].item<int64_t>();
    blocks.push_back({begin, end, {counts[g].item<double>(), means[g], scatters[g], skipped[g].item<int64_t>()}});
    begin = end;
  }
  return blocks;
}

at::Tensor take_metric(TensorReader& tensors, const std::string& name, int64_t dim) {
  const at::Tensor metric = tensors.take(name, {dim, dim});
  if (!metric.isfinite().all().item<bool>()) fail<FormatError>("tensor '{}' must be finite", name);
  return metric;
}

// What version 1 does not have.
void take_optional(TensorReader& tensors, const std::string& path, const LayerText& text, LayerStatistics& layer) {
  const int64_t width = layer.is_embedding ? layer.embedding_dim + (layer.wide ? 1 : 0) : layer.out_features;
  if ((text.joint && !(layer.is_embedding && layer.wide)) || (text.blocks && !layer.is_embedding) ||
      (text.input && layer.is_embedding)) {
    fail<FormatError>("layer '{}' must not have moments of a layer of another kind", path);
  }
  for (std::size_t i = 0; i < layer.output.size(); ++i) {
    const Moments& output = layer.output[i];
    if (text.metric) layer.metric.push_back(take_metric(tensors, fmt::format("{}/metric.{}", path, i), width));
    if (text.joint) {
      layer.joint.emplace_back(output.count(), tensors.take(fmt::format("{}/joint_mean.{}", path, i), {width}),
                               tensors.take(fmt::format("{}/joint_scatter.{}", path, i), {width, width}),
                               output.skipped());
    }
    if (text.blocks) layer.id_blocks.push_back(take_blocks(tensors, path, i, layer.cardinalities[i], width));
  }
}

void take_linear(TensorReader& tensors, const std::string& path, const LayerText& text, LayerStatistics& layer) {
  layer.input_mean = tensors.take(path + "/input_mean", {layer.in_features});
  layer.radius = tensors.take(path + "/radius", {}).item<double>();
  if (!(layer.radius >= 0.0 && std::isfinite(layer.radius) && layer.input_mean.isfinite().all().item<bool>())) {
    fail<FormatError>("layer '{}' must have a finite radius and input mean", path);
  }
  if (!text.input) return;
  const double count = tensors.take(path + "/input_count", {}).item<double>();
  const auto skipped = tensors.take(path + "/input_skipped", {}, at::kLong).item<int64_t>();
  layer.input = {count, layer.input_mean, tensors.take(path + "/input_scatter", {layer.in_features, layer.in_features}),
                 skipped};
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
  take_optional(tensors, path, text, layer);
  if (!layer.is_embedding) take_linear(tensors, path, text, layer);
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
  for (int known = 1; known <= kStatisticsVersion; ++known) {
    if (version == std::to_string(known)) return;
  }
  fail<FormatError>("'{}' has version {}, this libafm reads up to {}; upgrade", file.path().string(), version,
                    kStatisticsVersion);
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
  save_tensors(
      path,
      {{"kind", std::string(kKind)}, {"version", std::to_string(kStatisticsVersion)}, {"statistics", text.dump()}},
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
