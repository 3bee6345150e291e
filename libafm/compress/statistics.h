#pragma once

// What the outputs of the layers look like on calibration data: everything that ranks and factors are computed from.
//
//   auto statistics = collect_statistics(*model, next_logits);   // next_logits(): std::optional<Tensor>, a batch a
//   call
//
// Works on any module tree that holds nn::Linear and nn::Embedding. Hooks are removed at the end, also after an
// exception; a hook that a layer had before is gone too.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include "libafm/data/dataset.h"
#include "libafm/linalg/moments.h"
#include "libafm/nn/model.h"

namespace afm {

// Consecutive ids [begin, end) of a field: moments [D(+ 1 if wide)] of their table rows, the wide weight last, weighted
// by id counts.
struct IdBlock {
  int64_t begin = 0, end = 0;
  Moments rows;
};

// Everything on the CPU. A layer that is used several times in one forward pass has the statistics of all its uses.
struct LayerStatistics {
  bool is_embedding = false;
  // Linear [m, n]
  int64_t in_features = 0, out_features = 0;
  bool bias = true;
  at::Tensor input_mean;  // [n] float64
  Moments input;          // [n]; only with CollectOptions::input_moments, else of dim() 0
  // Embedding [F fields, D wide]
  std::vector<int64_t> cardinalities;  // [F]
  int64_t embedding_dim = 0;
  bool wide = false;
  std::vector<at::Tensor> id_counts;  // [F] of [N_j] float64: how often each id was looked up
  // Linear: one, of the outputs [m]. Embedding: one per field [D], over rows that have a value; for a field with one
  // slot exactly from id counts and the table, with no forward pass; for a multi-valued field from its pooled outputs.
  std::vector<Moments> output;
  // Embedding with wide weights: the same per field of [embedding | wide weight], [D + 1] each; else empty.
  std::vector<Moments> joint;
  // Embedding: blocks that cover the ids of each field in order, each about half as long again as all before it: what
  // frequency tiers are planned from.
  std::vector<std::vector<IdBlock>> id_blocks;  // [F]
  // Only with CollectOptions::metric, else empty: the Gauss-Newton matrix of the logloss (Schraudolph 2002) in the
  // output y of the layer, E[p (1 - p) a a'] with a = dlogit / dy, float64: per row of data, summed over the uses of
  // the layer. A change of y by an independent delta raises the logloss by about 1/2 tr(metric Cov(delta)).
  // Linear: one [m, m]. Embedding: one per field [D(+ 1 if wide)] squared, the wide weight last.
  std::vector<at::Tensor> metric;
  double radius = 0.0;  // Linear: no output was farther from the mean than this (an upper bound)

  int64_t parameters() const;  // of the dense layer
};

struct Statistics {
  std::map<std::string, LayerStatistics> layers;  // by module path; dense layers that the data reached
  std::vector<std::string> unreached;             // dense layers that no batch went through
  int64_t rows = 0;
  // The rows were the whole training set: an id without a count was never trained (CollectOptions).
  bool whole_training_set = false;
  // Of the whole module tree; bytes are parameters and buffers.
  int64_t parameters = 0, parameter_bytes = 0, bytes = 0;

  // A safetensors file of kind "afm-statistics". Atomic, bitwise.
  void save(const std::filesystem::path& path) const;
  // Reads files of earlier versions too: what they lack is empty. Verifies the checksum. Throws FormatError (damaged,
  // foreign, newer) or IoError.
  static Statistics load(const std::filesystem::path& path);
};

struct CollectOptions {
  // Say so when the batches are every row that the model was trained on: the row of an id without a count is then noise
  // from its initialisation, and factorize_ gives it the mean of its field. Otherwise it keeps what it learned.
  bool whole_training_set = false;
  bool metric = false;         // LayerStatistics::metric; costs a backward pass to the layers' outputs for each batch
  bool input_moments = false;  // LayerStatistics::input; [n, n] float64 for each linear layer
  bool operator==(const CollectOptions&) const = default;
};

// One batch a call: runs the model on it and returns the logits, or nothing when there are no more. Runs in evaluation
// mode, without gradient unless the metric is asked for: a next_logits that switches gradients off then is an
// std::invalid_argument. Throws DataError when more than one row in a thousand has a non-finite output (naming the
// layer) or when there was no row. Rows with a non-finite output are left out.
using NextLogits = std::function<std::optional<at::Tensor>()>;
Statistics collect_statistics(torch::nn::Module& module, const NextLogits& next_logits, CollectOptions options = {});

// The logits of a model over a dataset, batch by batch: every row in order or, where `max_rows` is above 0 and below
// the size of the dataset, that many rows drawn at random (the same ones each time). Model and dataset must outlive it.
// Throws DataError when the dataset's schema does not fit the model's.
NextLogits logits_of(Model& model, const Dataset& dataset, int64_t max_rows = 0, int64_t batch_size = 4096);

}  // namespace afm
