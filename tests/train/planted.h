#pragma once

// Clicks drawn from a known logistic model, and models to learn them.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#include <unistd.h>

#include <torch/torch.h>

#include "libafm/data/dataset.h"
#include "libafm/nn/embedding.h"
#include "libafm/nn/linear.h"
#include "libafm/nn/model.h"
#include "libafm/nn/model_file.h"

namespace afm::testing {

inline constexpr int64_t kFields = 3, kCardinality = 20;

inline Schema planted_schema() {
  Schema schema;
  for (const char* name : {"user", "item", "hour"})
    schema.fields.push_back({.name = name, .cardinality = kCardinality});
  return schema;
}

struct Planted {
  Dataset dataset;
  at::Tensor logits;  // [N], of the true model
};

// logit = sum over fields of a weight ~ N(0, 1) per id; the weights are the same for every `seed`.
inline Planted planted_clicks(int64_t rows, int64_t seed) {
  torch::manual_seed(7);
  const auto weights = torch::randn({kFields, kCardinality});
  torch::manual_seed(seed);
  const auto ids = torch::randint(kCardinality, {rows, kFields});
  const auto logits = weights.gather(1, ids.t()).sum(0);
  const auto label = (torch::rand({rows}) < torch::sigmoid(logits)).to(torch::kFloat32);
  return {Dataset::from_tensors(planted_schema(), {ids.to(torch::kInt32), {}, label}), logits};
}

inline Dataset with_labels(const Dataset& dataset, const at::Tensor& label) {
  return Dataset::from_tensors(dataset.schema(), {dataset.range(0, dataset.size()).ids, {}, label});
}

// The wide weights of an embedding, and a bias.
class Logistic : public Model {
 public:
  Logistic() : Model(planted_schema()) {
    nn::EmbeddingOptions options;
    options.cardinalities = schema().cardinalities();
    options.embedding_dim = 2;
    options.wide = true;
    embedding = register_module("embedding", nn::Embedding(options));
    bias = register_parameter("bias", torch::zeros({1}));
  }
  at::Tensor forward(const Batch& batch) override { return embedding->lookup(batch.ids).wide + bias; }
  std::string_view kind() const override { return "logistic"; }
  std::string options_json() const override { return "{}"; }
  std::shared_ptr<Model> rebuild(std::string_view, const RankPlan&) const override {
    return std::make_shared<Logistic>();
  }

  nn::Embedding embedding{nullptr};
  at::Tensor bias;
};

// Everything that a checkpoint must carry: a table, batch norm (buffers), dropout (a generator). Throws in its forward
// number `killed_at`, from 0: where a process may die.
class Network : public Model {
 public:
  explicit Network(int64_t width = 8) : Model(planted_schema()), width_(width) {
    nn::EmbeddingOptions options;
    options.cardinalities = schema().cardinalities();
    options.embedding_dim = 4;
    options.init_std = 0.1;
    embedding = register_module("embedding", nn::Embedding(options));
    hidden = register_module("hidden", nn::Linear(kFields * 4, width));
    norm = register_module("norm", torch::nn::BatchNorm1d(width));
    head = register_module("head", nn::Linear(width, 1));
  }
  at::Tensor forward(const Batch& batch) override {
    if (forwards_++ == killed_at) throw std::runtime_error("killed");
    auto x = hidden->forward(embedding->forward(batch.ids).flatten(1));
    x = torch::dropout(torch::relu(norm->forward(x)), 0.3, is_training());
    return head->forward(x).squeeze(1);
  }
  std::string_view kind() const override { return "network"; }
  std::string options_json() const override { return "{\"width\":" + std::to_string(width_) + "}"; }
  std::shared_ptr<Model> rebuild(std::string_view, const RankPlan&) const override {
    return std::make_shared<Network>(width_);
  }

  int64_t killed_at = -1;
  nn::Embedding embedding{nullptr};
  nn::Linear hidden{nullptr}, head{nullptr};
  torch::nn::BatchNorm1d norm{nullptr};

 private:
  int64_t width_, forwards_ = 0;
};

inline std::shared_ptr<Network> fresh_network(int64_t width = 8) {
  torch::manual_seed(3);
  return std::make_shared<Network>(width);
}

inline bool same_bytes(const torch::nn::Module& a, const torch::nn::Module& b) {
  const auto left = state_of(a), right = state_of(b);
  for (const auto& [name, tensor] : left) {
    if (!right.contains(name) || !torch::equal(tensor, right.at(name))) return false;
  }
  return left.size() == right.size();
}

// A path that does not exist yet, removed at the end.
class ScratchFile {
 public:
  explicit ScratchFile(const std::string& name)
      : path_(std::filesystem::temp_directory_path() / ("afm_train_" + std::to_string(::getpid()) + "_" + name)) {
    std::filesystem::remove(path_);
  }
  ~ScratchFile() { std::filesystem::remove(path_); }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::string string() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace afm::testing
