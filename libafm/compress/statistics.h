#pragma once

// What the outputs of the layers look like on calibration data: everything that ranks and factors are computed from.
//
//   auto statistics = collect_statistics(*model, next_logits);   // next_logits(): std::optional<Tensor>, one batch a call
//
// Works on any module tree that holds nn::Linear and nn::Embedding. Hooks are removed at the end, also after an exception.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <torch/nn/module.h>

#include "libafm/data/dataset.h"
#include "libafm/linalg/moments.h"
#include "libafm/nn/model.h"

namespace afm {

struct LayerStatistics {
  bool is_embedding = false;
  // Linear [m, n]
  int64_t in_features = 0, out_features = 0;
  bool bias = true;
  at::Tensor input_mean;               // [n] float64
  // Embedding [F fields, D wide]
  std::vector<int64_t> cardinalities;  // [F]
  int64_t embedding_dim = 0;
  bool wide = false;
  std::vector<at::Tensor> id_counts;   // [F] of [N_j] float64: how often each id was looked up
  // Linear: one, of the outputs [m]. Embedding: one per field [D]; for a field with one slot exactly from id counts and
  // the table, with no forward pass; for a multi-valued field from its pooled outputs, rows with a value only.
  std::vector<Moments> output;
  std::vector<double> radius;          // Linear: largest distance of an output from the mean (an upper bound)

  int64_t parameters() const;          // of the dense layer
};

struct Statistics {
  std::map<std::string, LayerStatistics> layers;   // by module path; dense layers that the data reached
  std::vector<std::string> unreached;              // dense layers that no batch went through
  int64_t rows = 0;
  int64_t parameters = 0, bytes = 0;               // of the whole module tree

  void save(const std::filesystem::path& path) const;
  static Statistics load(const std::filesystem::path& path);
};

// One batch a call: runs the model on it and returns the logits, or nothing when there are no more. Runs in evaluation
// mode, without gradient. Throws DataError when more than one row in a thousand has a non-finite output (naming the layer)
// or when there was no batch.
using NextLogits = std::function<std::optional<at::Tensor>()>;
Statistics collect_statistics(torch::nn::Module& module, const NextLogits& next_logits);

// The logits of a model over a dataset, batch by batch, at most `max_rows` rows (0: all), in a shuffled order.
NextLogits logits_of(Model& model, const Dataset& dataset, int64_t max_rows = 0, int64_t batch_size = 4096);

}  // namespace afm
