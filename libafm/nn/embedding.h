#pragma once

// ONE table for all fields, with row offsets, dense or factorized; optionally with the wide (first-order) weight of
// each id in the same row.
//   dense      weight [N, D] or [N, D + 1]: row of field j, id v is row start_j + v; the last column is the wide weight
//   ranks      latent, flat: field after field, tier after tier, row after row, k values per row, then the wide weight;
//              a shared tier has one row; basis [k_1 + .. + k_F, D] (shared: [max k, D], field j uses the first k_j
//              rows);  offset [F, D];  e_v = sum_c z_vc basis_c + offset_j
//   joint      basis and offset are D + 1 wide: the last column decodes the wide weight, which is stored nowhere else
//   kNone      latent alone: a lookup gives the latents [B, K], K = k_1 + .. + k_F, field after field
// A multi-valued field is the mean over its filled slots, zero when it has none (offset and wide weight included).
//
//   afm::nn::Embedding embedding(EmbeddingOptions{.cardinalities = {1000, 50}, .embedding_dim = 16});
//   embedding->forward(ids);    // [B, 2] ids -> [B, 2, 16]

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include "libafm/core/fields.h"
#include "libafm/linalg/factors.h"
#include "libafm/nn/layer.h"

namespace afm::nn {

struct EmbeddingLayout;  // private: embedding_layout.h
class RowUpdates;        // private: touched_rows.h
struct DeviceRowInbox;   // private: device_rows.h

struct EmbeddingOptions {
  std::vector<int64_t> cardinalities = {};  // [F] ids per field, each at least 1
  int64_t embedding_dim = 16;               // D, at least 1
  std::vector<int64_t> slots = {};          // [F] id slots per field; empty = one each
  std::vector<bool> multi_valued = {};      // [F] whether slots may be empty; empty = where there are several slots
  std::vector<std::string> names = {};      // [F] field names for errors; empty = their numbers
  bool wide = false;                        // keep a first-order weight per id
  double init_std = 1e-4;                   // values and wide weights ~ N(0, init_std^2)
  std::vector<int64_t> ranks = {};          // [F] in [0, D]; empty = dense
  Basis basis = Basis::kField;
  bool joint = false;  // decode wide weights from the latents; needs `wide`, ranks, no shared basis
  std::vector<std::vector<Tier>> tiers = {};  // see LayerPlan; needs ranks
  Bits bits = Bits::kFloat;                   // of `weight` or `latent`
  ScaleBy scale = ScaleBy::kRow;
  bool operator==(const EmbeddingOptions&) const = default;
};

struct EmbeddingOutput {
  at::Tensor values;   // [B, F, D]; undefined with Basis::kNone
  at::Tensor wide;     // [B] sum over fields of the (mean) wide weight; undefined without `wide` and with kNone + joint
  at::Tensor latents;  // [B, K] with Basis::kNone, else undefined; coordinates that a tier lacks are zero
};

// What models make of a lookup, in one pass on a GPU.
struct EmbeddingFeatures {
  at::Tensor input;  // [B, F D + Q] values and dense features side by side, of the type `feature_type`
  at::Tensor
      score;  // [B] float32: wide weights, and with `interaction` that of factorization_machine(); may be undefined
};

// Called with the ids and all that a lookup gives; see OutputHook.
using LookupHook = std::function<void(const at::Tensor& ids, const EmbeddingOutput& output)>;

class EmbeddingImpl : public torch::nn::Cloneable<EmbeddingImpl>, public Layer {
 public:
  explicit EmbeddingImpl(EmbeddingOptions options);

  void reset() override;
  void reset_parameters() override;
  void pretty_print(std::ostream& stream) const override;
  void train(bool on = true) override;

  // ids [B, S] int32 or int64, local to their field. Throws DataError that names field, id and cardinality for an id
  // that is out of range. The output hook gets (ids, values), with Basis::kNone (ids, latents).
  EmbeddingOutput lookup(const at::Tensor& ids);
  void set_lookup_hook(LookupHook hook) { lookup_hook_ = std::move(hook); }  // an empty hook removes it
  at::Tensor forward(const at::Tensor& ids);  // the values, with Basis::kNone the latents
  // The same with dense features [B, Q] (float32 without gradient, or undefined) in one pass, forward and backward;
  // `interaction`: the fields meet in a factorization machine. nullopt where that does not exist: only for a dense
  // float32 table of single-valued fields on a GPU of a build with AFM_CUDA, int32 ids and no hooks.
  std::optional<EmbeddingFeatures> features(const at::Tensor& ids, const at::Tensor& dense, bool interaction);
  // For an optimizer that trains the table (float32) row by row; null ends it. Not copied with the layer.
  void set_row_updates(std::shared_ptr<RowUpdates> updates) { row_updates_.pointer = std::move(updates); }
  // The same on a GPU, of features().
  void set_device_rows(std::shared_ptr<DeviceRowInbox> inbox) { row_updates_.on_device = std::move(inbox); }
  const EmbeddingLayout& layout() const { return *layout_; }

  bool is_dense() const override { return options.ranks.empty(); }
  LayerPlan plan() const override;
  void reshape(const LayerPlan& plan) override;
  // Becomes factorized as `plan` says: one TableFactors per field, latent [N_j, k_j], basis [k_j, D] and offset [D]
  // (D + 1 when joint; not read with Basis::kNone). plan.ranks may be empty: they are the shapes'. With a shared basis
  // every basis must be a prefix of the longest. Latents are cut to the rank of their tier; in a shared tier they must
  // be equal. Wide weights that are stored on their own are `wide` [N], by default those that the layer has (their mean
  // in a shared tier). Throws std::invalid_argument and changes nothing when something does not fit.
  void set_factors(const std::vector<TableFactors>& fields, const LayerPlan& plan, const at::Tensor& wide = {});

  int64_t field_count() const { return static_cast<int64_t>(options.cardinalities.size()); }  // F
  int64_t slot_count() const;                                                                 // S
  int64_t row_count() const;                                                                  // N
  // Rows of field j as a dense table [N_j, D] (with Basis::kNone the latents [N_j, k_j]), whatever the form, integers
  // as the values that they stand for: a copy, without gradient.
  at::Tensor table(int64_t field) const;
  // [N], a copy, decoded when joint; undefined without `wide` and with kNone + joint.
  at::Tensor wide_weights() const;
  int64_t wide_parameters() const;  // wide weights that are stored on their own
  std::vector<IntegerParameter> integer_parameters() const override;

  EmbeddingOptions options;
  // On a GPU the range check of ids waits for the device. Data that was checked before (Dataset) may switch it off; an
  // id out of range is then clamped, never out of bounds. On the CPU the check is free and always on.
  bool check_ids = true;
  at::ScalarType feature_type = at::kFloat;  // of features(): float32 or bfloat16; the table stays float32
  at::Tensor weight;                         // dense
  at::Tensor latent, basis, offset;          // factorized; basis and offset undefined with Basis::kNone

 private:
  struct RowUpdatesOfOne {
    RowUpdatesOfOne() = default;
    RowUpdatesOfOne(const RowUpdatesOfOne&) {}
    RowUpdatesOfOne& operator=(const RowUpdatesOfOne&) { return *this; }
    std::shared_ptr<RowUpdates> pointer;
    std::shared_ptr<DeviceRowInbox> on_device;
  };

  EmbeddingOptions reshaped(const LayerPlan& plan) const;  // checked
  void allocate(const at::TensorOptions& like);
  const EmbeddingLayout& layout_on(at::Device device);
  // `weight` or `latent`, or the values of its integers.
  at::Tensor table_values() const;

  LookupHook lookup_hook_;
  RowUpdatesOfOne row_updates_;
  std::shared_ptr<EmbeddingLayout> layout_;  // what `options` amount to, with index tensors on one device
  std::shared_ptr<IntegerWeight> integers_;  // null for floats
};
TORCH_MODULE(Embedding);

}  // namespace afm::nn
