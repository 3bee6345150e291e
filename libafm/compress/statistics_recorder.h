#pragma once

// Private: what the output hooks of a layer add up. One recorder per layer; the sums stay on the layer's device until
// finish().

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/compress/statistics.h"
#include "libafm/linalg/moments.h"
#include "libafm/nn/embedding.h"
#include "libafm/nn/layer.h"
#include "libafm/nn/linear.h"

namespace afm {

class LayerRecorder {
 public:
  virtual ~LayerRecorder() = default;
  virtual void add(const at::Tensor& input, const at::Tensor& output) = 0;
  virtual bool reached() const = 0;
  // Throws DataError that names `layer` when too many of its outputs were not finite.
  virtual LayerStatistics finish(const std::string& layer) const = 0;
};

// Nothing for a layer that is factorized already, or of a kind that cannot be.
std::unique_ptr<LayerRecorder> recorder_for(nn::Layer& layer);

class LinearRecorder : public LayerRecorder {
 public:
  explicit LinearRecorder(const nn::LinearImpl& layer) : layer_(layer) {}
  void add(const at::Tensor& input, const at::Tensor& output) override;
  bool reached() const override { return output_.dim() > 0; }
  LayerStatistics finish(const std::string& layer) const override;

 private:
  void add_radius(const at::Tensor& rows);

  const nn::LinearImpl& layer_;
  Moments output_;
  at::Tensor input_sum_;        // [n] float64, over the rows in output_
  at::Tensor centre_, radius_;  // [m], []: no row so far is farther than radius_ from centre_
};

class EmbeddingRecorder : public LayerRecorder {
 public:
  explicit EmbeddingRecorder(const nn::EmbeddingImpl& layer);
  void add(const at::Tensor& input, const at::Tensor& output) override;
  bool reached() const override { return counts_.defined(); }
  LayerStatistics finish(const std::string& layer) const override;

 private:
  void count_ids(const at::Tensor& ids);
  void add_pooled(const at::Tensor& ids, const at::Tensor& values);
  Moments table_moments(int64_t field, const at::Tensor& counts) const;

  const nn::EmbeddingImpl& layer_;
  std::vector<int64_t> slots_;        // [F]
  std::vector<int64_t> row_starts_;   // [F + 1] first table row of each field, then N
  std::vector<int64_t> slot_starts_;  // [F + 1]
  at::Tensor counts_;                 // [N + 1] int64; empty slots count in the last
  std::vector<Moments> pooled_;       // [F], used for fields with several slots
};

}  // namespace afm
