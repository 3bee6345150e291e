#pragma once

// Private: what the hooks of a layer add up. One recorder per layer; the sums stay on the layer's device until
// finish().

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/compress/metric_recorder.h"
#include "libafm/compress/statistics.h"
#include "libafm/linalg/moments.h"
#include "libafm/nn/embedding.h"
#include "libafm/nn/layer.h"
#include "libafm/nn/linear.h"

namespace afm {

class LayerRecorder {
 public:
  virtual ~LayerRecorder() = default;
  virtual void attach() = 0;  // its hooks
  virtual void detach() = 0;
  virtual bool reached() const = 0;
  // Outputs of the batch that just ran, whose gradients add_gradients() then gets; none without a metric.
  virtual std::vector<torch::autograd::Edge> take_outputs() = 0;
  virtual void add_gradients(const std::vector<at::Tensor>& gradients) = 0;
  // rows: of data, with a finite logit. Throws DataError that names `layer` when too many of its outputs were not
  // finite.
  virtual LayerStatistics finish(const std::string& layer, double rows) const = 0;
};

// Nothing for a layer that is factorized already, or of a kind that cannot be.
std::unique_ptr<LayerRecorder> recorder_for(nn::Layer& layer, const CollectOptions& options);

class LinearRecorder : public LayerRecorder {
 public:
  LinearRecorder(nn::LinearImpl& layer, const CollectOptions& options) : layer_(layer), options_(options) {}
  void attach() override;
  void detach() override { layer_.set_output_hook({}); }
  bool reached() const override { return output_.dim() > 0; }
  std::vector<torch::autograd::Edge> take_outputs() override { return edges_.take(); }
  void add_gradients(const std::vector<at::Tensor>& gradients) override;
  LayerStatistics finish(const std::string& layer, double rows) const override;

 private:
  void add(const at::Tensor& input, const at::Tensor& output);
  void add_radius(const at::Tensor& rows);

  nn::LinearImpl& layer_;
  CollectOptions options_;
  Moments output_, input_;
  at::Tensor input_sum_;        // [n] float64, over the rows in output_
  at::Tensor centre_, radius_;  // [m], []: no row so far is farther than radius_ from centre_
  OutputEdges edges_;
  at::Tensor metric_;  // [m, m] float64 sum
};

class EmbeddingRecorder : public LayerRecorder {
 public:
  EmbeddingRecorder(nn::EmbeddingImpl& layer, const CollectOptions& options);
  void attach() override;
  void detach() override { layer_.set_lookup_hook({}); }
  bool reached() const override { return counts_.defined(); }
  std::vector<torch::autograd::Edge> take_outputs() override { return edges_.take(); }
  void add_gradients(const std::vector<at::Tensor>& gradients) override;
  LayerStatistics finish(const std::string& layer, double rows) const override;

 private:
  void add(const at::Tensor& ids, const at::Tensor& values);
  void count_ids(const at::Tensor& ids);
  void add_pooled(const at::Tensor& ids, const at::Tensor& values);
  bool may_be_empty(std::size_t field) const;
  at::Tensor filled(const at::Tensor& ids, std::size_t field) const;  // [B]
  int64_t width() const { return layer_.weight.size(1); }             // D, or D + 1 with wide weights
  at::Tensor table(std::size_t field) const;                          // [N_j, width]
  std::vector<IdBlock> blocks_of(std::size_t field, const at::Tensor& counts, const std::string& what) const;

  nn::EmbeddingImpl& layer_;
  CollectOptions options_;
  std::vector<int64_t> slots_;        // [F]
  std::vector<int64_t> row_starts_;   // [F + 1] first table row of each field, then N
  std::vector<int64_t> slot_starts_;  // [F + 1]
  at::Tensor counts_;                 // [N + 1] int64; empty slots count in the last
  std::vector<Moments> pooled_;       // [F] of [width], used for fields with several slots
  OutputEdges edges_;
  std::vector<at::Tensor> pending_ids_;  // of the lookups that edges_ belong to
  at::Tensor metric_;                    // [F, width, width] float64 sum
};

}  // namespace afm
