#pragma once

// ONE table for all fields, with row offsets, dense or factorized; optionally with the wide (first-order) weight of
// each id in the same row.
//   dense      weight [N, D] or [N, D + 1]: row of field j, id v is row start_j + v; the last column is the wide weight
//   ranks      latent, flat: field after field, row after row, k_j values (then the wide weight) per row;
//              basis [k_1 + .. + k_F, D] (shared: [max k, D], field j uses the first k_j rows);  offset [F, D]
//              e_v = sum_c z_vc basis_c + offset_j
// A multi-valued field is the mean over its filled slots, zero when it has none (offset included).
//
//   afm::nn::Embedding embedding(EmbeddingOptions{.cardinalities = {1000, 50}, .embedding_dim = 16});
//   embedding->forward(ids);    // [B, 2] ids -> [B, 2, 16]

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include "libafm/core/fields.h"
#include "libafm/linalg/factors.h"
#include "libafm/nn/layer.h"

namespace afm::nn {

struct EmbeddingLayout;  // private: embedding_layout.h

struct EmbeddingOptions {
  std::vector<int64_t> cardinalities = {};  // [F] ids per field, each at least 1
  int64_t embedding_dim = 16;               // D, at least 1
  std::vector<int64_t> slots = {};          // [F] id slots per field; empty = one each
  std::vector<std::string> names = {};      // [F] field names for errors; empty = their numbers
  bool wide = false;                        // keep a first-order weight per id
  double init_std = 1e-4;                   // values and wide weights ~ N(0, init_std^2)
  std::vector<int64_t> ranks = {};          // [F] in [0, D]; empty = dense
  Basis basis = Basis::kField;
  bool operator==(const EmbeddingOptions&) const = default;
};

struct EmbeddingOutput {
  at::Tensor values;  // [B, F, D]
  at::Tensor wide;    // [B] sum over fields of the (mean) wide weight; undefined without `wide`
};

class EmbeddingImpl : public torch::nn::Cloneable<EmbeddingImpl>, public Layer {
 public:
  explicit EmbeddingImpl(EmbeddingOptions options);

  void reset() override;
  void reset_parameters() override;
  void pretty_print(std::ostream& stream) const override;

  // ids [B, S] int32 or int64, local to their field. Throws DataError that names field, id and cardinality for an id
  // that is out of range. The output hook gets (ids, values).
  EmbeddingOutput lookup(const at::Tensor& ids);
  at::Tensor forward(const at::Tensor& ids) { return lookup(ids).values; }

  bool is_dense() const override { return options.ranks.empty(); }
  LayerPlan plan() const override;
  void reshape(const LayerPlan& plan) override;
  // Becomes factorized: one TableFactors per field, ranks from their shapes. With Basis::kShared every basis must be a
  // prefix of the longest. The wide weights stay as they are.
  void set_factors(const std::vector<TableFactors>& fields, Basis basis);

  int64_t field_count() const { return static_cast<int64_t>(options.cardinalities.size()); }  // F
  int64_t slot_count() const;                                                                 // S
  int64_t row_count() const;                                                                  // N
  // Rows of field j as a dense table [N_j, D], whatever the form: a copy, without gradient.
  at::Tensor table(int64_t field) const;
  at::Tensor wide_weights() const;  // [N], a copy; undefined without `wide`
  int64_t wide_parameters() const { return options.wide ? row_count() : 0; }

  EmbeddingOptions options;
  // On a GPU the range check of ids waits for the device. Data that was checked before (Dataset) may switch it off; an
  // id out of range is then clamped, never out of bounds. On the CPU the check is free and always on.
  bool check_ids = true;
  at::Tensor weight;                 // dense
  at::Tensor latent, basis, offset;  // factorized

 private:
  void allocate(const at::TensorOptions& like);
  const EmbeddingLayout& layout_on(at::Device device);

  std::shared_ptr<EmbeddingLayout> layout_;  // what `options` amount to, with index tensors on one device
};
TORCH_MODULE(Embedding);

}  // namespace afm::nn
