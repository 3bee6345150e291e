#include "tests/serve/model_files.h"

#include <cmath>
#include <cstring>
#include <numeric>

namespace afm::serve::testing {
namespace {

constexpr int64_t kDim = 4, kFields = 3;
constexpr int64_t kCardinality[kFields] = {7, 5, 4}, kFieldSlots[kFields] = {1, 3, 1};

int64_t count_of(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

class Random {
 public:
  explicit Random(uint32_t seed) : generator_(seed) {}
  OwnedTensor normal(std::vector<int64_t> shape, float deviation) {
    std::normal_distribution<float> distribution(0, deviation);
    std::vector<float> values(static_cast<std::size_t>(count_of(shape)));
    for (float& value : values) value = distribution(generator_);
    return floats_of(std::move(shape), values);
  }
  OwnedTensor positive(std::vector<int64_t> shape) {
    std::uniform_real_distribution<float> distribution(0.3F, 2.0F);
    std::vector<float> values(static_cast<std::size_t>(count_of(shape)));
    for (float& value : values) value = distribution(generator_);
    return floats_of(std::move(shape), values);
  }
  OwnedTensor bytes(DType dtype, int64_t count) {
    std::vector<uint8_t> values(static_cast<std::size_t>(count));
    for (uint8_t& value : values) {
      value = static_cast<uint8_t>(generator_() % 255);
      if (dtype == DType::kI8) value = static_cast<uint8_t>(value - 127);
    }
    return tensor_of(dtype, {count}, values);
  }
  OwnedTensor scales(int64_t count, float largest) {
    std::vector<uint16_t> values;
    std::uniform_real_distribution<float> distribution(largest / 2, largest);
    for (int64_t i = 0; i < count; ++i) {
      const float value = distribution(generator_);
      uint32_t bits = 0;
      std::memcpy(&bits, &value, sizeof bits);
      values.push_back(static_cast<uint16_t>(bits >> 16));
    }
    return tensor_of(DType::kBF16, {count}, values);
  }

 private:
  std::mt19937 generator_;
};

ModelParts parts_of(const char* model, const char* options, const char* layers) {
  return {{{"kind", "afm-model"},
           {"version", "1"},
           {"model", model},
           {"options", options},
           {"schema", schema_to_json(click_schema())},
           {"ranks", std::string(R"({"kind": "afm-rank-plan", "version": 1, "layers": )") + layers + "}"},
           {"notes", "{}"}},
          {}};
}

// y = W x + b.
std::vector<double> linear(const ModelParts& parts, const std::string& path, const std::vector<double>& x) {
  const auto weight = values_of(parts.tensors.at(path + ".weight"));
  std::vector<double> y(weight.size() / x.size());
  const auto bias = parts.tensors.contains(path + ".bias") ? values_of(parts.tensors.at(path + ".bias"))
                                                           : std::vector<float>(y.size());
  for (std::size_t i = 0; i < y.size(); ++i) {
    y[i] = bias[i];
    for (std::size_t j = 0; j < x.size(); ++j) y[i] += x[j] * weight[i * x.size() + j];
  }
  return y;
}

void normalize_and_cut(const ModelParts& parts, const std::string& path, std::vector<double>& y) {
  const auto weight = values_of(parts.tensors.at(path + ".weight"));
  const auto bias = values_of(parts.tensors.at(path + ".bias"));
  const auto mean = values_of(parts.tensors.at(path + ".running_mean"));
  const auto variance = values_of(parts.tensors.at(path + ".running_var"));
  for (std::size_t i = 0; i < y.size(); ++i) {
    y[i] = std::max(0.0, (y[i] - mean[i]) / std::sqrt(variance[i] + 1e-5) * weight[i] + bias[i]);
  }
}

// Embeddings [F D] of a row, and the sum of its wide weights.
std::vector<double> embed(const ModelParts& parts, const int32_t* ids, double& wide) {
  const auto table = values_of(parts.tensors.at("embedding.weight"));
  std::vector<double> values;
  int64_t first_row = 0;
  for (int64_t j = 0; j < kFields; ++j) {
    double mean[kDim + 1] = {};
    int filled = 0;
    for (int64_t s = 0; s < kFieldSlots[j]; ++s, ++ids) {
      if (*ids < 0) continue;
      ++filled;
      for (int64_t d = 0; d <= kDim; ++d) {
        mean[d] += table[static_cast<std::size_t>((first_row + *ids) * (kDim + 1) + d)];
      }
    }
    for (int64_t d = 0; d < kDim; ++d) values.push_back(filled == 0 ? 0 : mean[d] / filled);
    wide += filled == 0 ? 0 : mean[kDim] / filled;
    first_row += kCardinality[j];
  }
  return values;
}

double pairs_of(const std::vector<double>& values) {
  double sum = 0;
  for (int64_t a = 0; a < kFields; ++a) {
    for (int64_t b = 0; b < a; ++b) {
      for (int64_t d = 0; d < kDim; ++d) {
        sum += values[static_cast<std::size_t>(a * kDim + d)] * values[static_cast<std::size_t>(b * kDim + d)];
      }
    }
  }
  return sum;
}

}  // namespace

std::vector<float> values_of(const OwnedTensor& tensor) {
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

void ModelParts::write(const std::filesystem::path& path) const {
  std::map<std::string, TensorView> views;
  for (const auto& [name, tensor] : tensors) views[name] = {tensor.dtype, tensor.shape, tensor.bytes};
  write_safetensors(path, metadata, views);
}

Schema click_schema() {
  Schema schema;
  schema.fields = {FieldSpec{.name = "user", .cardinality = 7}, FieldSpec{.name = "age", .kind = FieldKind::kNumeric},
                   FieldSpec{.name = "genres", .kind = FieldKind::kMulti, .cardinality = 5, .max_values = 3},
                   FieldSpec{.name = "item", .cardinality = 4},
                   FieldSpec{.name = "price", .kind = FieldKind::kNumeric}};
  return schema;
}

ModelParts deepfm_parts(uint32_t seed) {
  Random random(seed);
  ModelParts parts = parts_of("deepfm", R"({"embedding_dim": 4, "hidden": [6, 5]})", "{}");
  auto& tensors = parts.tensors;
  tensors["embedding.weight"] = random.normal({16, kDim + 1}, 0.6F);
  tensors["wide_dense.weight"] = random.normal({1, kDense}, 0.5F);
  tensors["bias"] = random.normal({1}, 0.5F);
  int64_t width = kFields * kDim + kDense, i = 0;
  for (const int64_t next : {6, 5}) {
    const std::string number = std::to_string(i++);
    tensors["mlp.layers." + number + ".weight"] = random.normal({next, width}, 0.4F);
    tensors["mlp.layers." + number + ".bias"] = random.normal({next}, 0.5F);
    for (const char* name : {"weight", "bias", "running_mean"}) {
      tensors["mlp.norms." + number + "." + name] = random.normal({next}, 0.7F);
    }
    tensors["mlp.norms." + number + ".running_var"] = random.positive({next});
    tensors["mlp.norms." + number + ".num_batches_tracked"] = tensor_of<int64_t>(DType::kI64, {}, {3});
    width = next;
  }
  tensors["mlp.head.weight"] = random.normal({1, width}, 0.5F);
  tensors["mlp.head.bias"] = random.normal({1}, 0.5F);
  return parts;
}

ModelParts folded_dcn_parts(uint32_t seed) {
  Random random(seed);
  ModelParts parts =
      parts_of("dcn", R"({"embedding_dim": 4, "hidden": [6], "batch_norm": false, "cross_layers": 2})",
               R"({"embedding": {"ranks": [3, 2, 1], "basis": "none", "bits": "int8", "scale": "row", "tiers":
          [[{"rows": 3, "rank": 3}, {"rows": 4, "rank": 1, "shared": true}], [], [{"rows": 2, "rank": 1},
           {"rows": 2, "rank": 0}]]},
          "mlp.layers.0": {"bits": "int4", "scale": "column"}})");
  auto& tensors = parts.tensors;
  const int64_t latents = 3 + 2 + 1 + 1, width = latents + kDense, elements = 3 * 3 + 1 + 5 * 2 + 2;
  tensors["embedding.latent.codes"] = random.bytes(DType::kI8, elements);
  tensors["embedding.latent.scale"] = random.scales(3 + 1 + 5 + 2, 0.01F);
  tensors["cross.weight"] = random.normal({3, width}, 0.4F);
  tensors["cross.bias"] = random.normal({3}, 0.4F);
  tensors["cross.shift"] = random.normal({3}, 0.4F);
  tensors["mlp.layers.0.weight.codes"] = random.bytes(DType::kU8, 6 * width / 2);
  tensors["mlp.layers.0.weight.scale"] = random.scales(width, 0.2F);
  tensors["mlp.layers.0.bias"] = random.normal({6}, 0.4F);
  tensors["head.weight"] = random.normal({1, 6}, 0.4F);
  tensors["head.bias"] = random.normal({1}, 0.4F);
  return parts;
}

Rows random_rows(int64_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Rows rows{.ids = {}, .dense = {}, .count = count};
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t j = 0; j < kFields; ++j) {
      for (int64_t s = 0; s < kFieldSlots[j]; ++s) {
        const auto id = static_cast<int32_t>(generator() % static_cast<uint32_t>(kCardinality[j]));
        rows.ids.push_back(kFieldSlots[j] > 1 && generator() % 2 == 0 ? -1 : id);
      }
    }
    for (int64_t q = 0; q < kDense; ++q) rows.dense.push_back(normal(generator));
  }
  return rows;
}

std::vector<double> deepfm_logits(const ModelParts& parts, const Rows& rows) {
  std::vector<double> logits;
  for (int64_t r = 0; r < rows.count; ++r) {
    double logit = values_of(parts.tensors.at("bias"))[0];
    std::vector<double> x = embed(parts, rows.ids.data() + r * kSlots, logit);
    logit += pairs_of(x);
    const std::vector<double> dense(rows.dense.begin() + r * kDense, rows.dense.begin() + (r + 1) * kDense);
    logit += linear(parts, "wide_dense", dense)[0];
    x.insert(x.end(), dense.begin(), dense.end());
    for (const char* number : {"0", "1"}) {
      x = linear(parts, std::string("mlp.layers.") + number, x);
      normalize_and_cut(parts, std::string("mlp.norms.") + number, x);
    }
    logits.push_back(logit + linear(parts, "mlp.head", x)[0]);
  }
  return logits;
}

void add_golden_rows(ModelParts& parts, const Rows& rows, const std::vector<float>& logits) {
  parts.tensors["golden.ids"] = tensor_of(DType::kI32, {rows.count, kSlots}, rows.ids);
  parts.tensors["golden.dense"] = floats_of({rows.count, kDense}, rows.dense);
  parts.tensors["golden.logits"] = floats_of({rows.count}, logits);
}

}  // namespace afm::serve::testing
