#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include "libafm/cuda/lazy_adam.h"
#include "libafm/cuda/table.h"
#include "libafm/nn/cpu_kernels.h"
#include "libafm/nn/cuda_launch.h"
#include "libafm/nn/device_rows.h"
#include "libafm/nn/device_table.h"
#include "libafm/nn/embedding_layout.h"

namespace afm::nn {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using LayoutPointer = std::shared_ptr<EmbeddingLayout>;
using InboxPointer = std::shared_ptr<DeviceRowInbox>;

// The places of a batch sorted by row, on a stream of their own while the model goes on. Whoever holds it may free its
// tensors: the stream that reads them, or frees them, waits.
class SortedPlaces {
 public:
  // `places`: the codes, undefined for a batch that is sorted by field.
  SortedPlaces(const cuda::Table& table, int64_t batch, const at::Tensor& rows, const at::Tensor& places)
      : rows_(rows), places_(places), sorted_rows_(at::empty_like(rows)), sorted_places_(at::empty_like(rows)) {
    if (places.defined()) scratch_ = bytes_like(cuda::sort_scratch(rows.size(0), table.row_count), rows);
    const c10::cuda::CUDAStream side = c10::cuda::getStreamFromPool(/*isHighPriority=*/false, rows.get_device());
    at::cuda::CUDAEvent ready;
    ready.record(c10::cuda::getCurrentCUDAStream(rows.get_device()));
    ready.block(side);
    check_launch(places.defined()
                     ? cuda::sort_rows(unsigned_of(rows_), unsigned_of(places_), rows.size(0), table.row_count,
                                       scratch_.mutable_data_ptr(), static_cast<std::size_t>(scratch_.numel()),
                                       unsigned_of(sorted_rows_), unsigned_of(sorted_places_), side)
                     : cuda::sort_fields(table, unsigned_of(rows_), batch, cuda::place_code(table.fields),
                                         unsigned_of(sorted_rows_), unsigned_of(sorted_places_), side));
    done_.record(side);
  }
  ~SortedPlaces() {
    if (!waited_) done_.block(c10::cuda::getCurrentCUDAStream(rows_.get_device()));
  }
  SortedPlaces(const SortedPlaces&) = delete;
  SortedPlaces& operator=(const SortedPlaces&) = delete;

  void give(DeviceRowGradients& to) {
    done_.block(c10::cuda::getCurrentCUDAStream(rows_.get_device()));
    waited_ = true;
    to.sorted_rows = sorted_rows_;
    to.sorted_places = sorted_places_;
  }

 private:
  at::Tensor rows_, places_, sorted_rows_, sorted_places_, scratch_;
  at::cuda::CUDAEvent done_;
  bool waited_ = false;
};

struct FeatureTask {
  LayoutPointer layout;
  InboxPointer inbox;  // null: the table's gradient is a tensor like any other
  at::ScalarType type;
  bool interaction, trains, check_ids;
};

// Lets the graph keep what its backward pass needs.
struct FeatureCapsule : torch::CustomClassHolder {
  FeatureCapsule(FeatureTask held, std::unique_ptr<SortedPlaces> order, at::Tensor read, int64_t size)
      : task(std::move(held)), sorted(std::move(order)), rows(std::move(read)), batch(size) {}
  FeatureTask task;
  std::unique_ptr<SortedPlaces> sorted;  // null without a gradient, or where `rows` are wanted as they are
  at::Tensor rows;                       // [B F]
  int64_t batch;
};

struct FeatureFunction : torch::autograd::Function<FeatureFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& table, const at::Tensor& ids,
                               const std::optional<at::Tensor>& dense, const FeatureTask& task) {
    const c10::cuda::CUDAGuard guard(table.device());
    const EmbeddingLayout& layout = *task.layout;
    const int64_t batch = ids.size(0), fields = layout.field_count();
    const int64_t dense_count = dense ? dense->size(1) : 0;
    const at::TensorOptions options = table.options();
    const auto empty_if = [&](bool wanted, at::IntArrayRef shape, at::ScalarType type) {
      return wanted ? at::empty(shape, options.dtype(type)) : at::Tensor();
    };
    const at::Tensor input = at::empty({batch, fields * layout.dim + dense_count}, options.dtype(task.type));
    const at::Tensor score = empty_if(layout.wide || task.interaction, {batch}, at::kFloat);
    const at::Tensor sums = empty_if(task.trains && task.interaction, {batch, layout.dim}, at::kFloat);
    const at::Tensor rows = empty_if(task.trains, {batch * fields}, at::kInt);
    const bool sorts = task.trains && (!task.inbox || task.inbox->sorted);
    const at::Tensor places = empty_if(sorts && batch > cuda::kLargestFieldSort, {batch * fields}, at::kInt);
    const at::Tensor wrong = task.check_ids ? at::zeros({1}, options.dtype(at::kLong)) : at::Tensor();
    const cuda::Lookup lookup{.ids = ids.const_data_ptr<int32_t>(),
                              .batch = batch,
                              .dense = dense ? dense->const_data_ptr<float>() : nullptr,
                              .dense_count = static_cast<int>(dense_count),
                              .input = input.mutable_data_ptr(),
                              .element = element_of(task.type),
                              .score = floats_of(score),
                              .interaction = task.interaction,
                              .sums = floats_of(sums),
                              .rows = rows.defined() ? unsigned_of(rows) : nullptr,
                              .places = places.defined() ? unsigned_of(places) : nullptr,
                              .code = cuda::place_code(fields),
                              .wrong = wrong.defined() ? wrong.mutable_data_ptr<int64_t>() : nullptr};
    const cuda::Table rows_of = table_of(layout, table);
    check_launch(task.inbox && task.inbox->lazy
                     ? cuda::lookup_lazily(rows_of, lookup, view_of(*task.inbox->lazy), stream_of(table))
                     : cuda::lookup(rows_of, lookup, stream_of(table)));
    if (wrong.defined() && wrong.item<int64_t>() > 0) fail_id(layout, ids);

    context->set_materialize_grads(false);
    auto sorted = sorts ? std::make_unique<SortedPlaces>(rows_of, batch, rows, places) : nullptr;
    context->saved_data["task"] = c10::IValue::make_capsule(
        c10::make_intrusive<FeatureCapsule>(task, std::move(sorted), sorts ? at::Tensor() : rows, batch));
    context->save_for_backward({table, sums});
    return score.defined() ? variable_list{input, score} : variable_list{input};
  }

  static variable_list backward(AutogradContext* context, variable_list& incoming) {
    refuse_second_derivative("Embedding");
    const auto capsule = context->saved_data["task"].toCapsule();
    const auto& kept = static_cast<const FeatureCapsule&>(*capsule);
    const FeatureTask& task = kept.task;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& table = saved[0];
    const c10::cuda::CUDAGuard guard(table.device());
    const auto contiguous = [](const at::Tensor& tensor) { return tensor.defined() ? tensor.contiguous() : tensor; };

    DeviceRowGradients gradients{.batch = kept.batch,
                                 .input = contiguous(incoming[0]),
                                 .score = incoming.size() > 1 ? contiguous(incoming[1]) : at::Tensor(),
                                 .sums = saved[1]};
    // Without a gradient of the score the sums have no share in it.
    if (!gradients.score.defined()) gradients.sums = at::Tensor();
    kept.sorted ? kept.sorted->give(gradients) : void(gradients.rows = kept.rows);
    at::Tensor gradient;
    if (task.inbox) {
      task.inbox->parts.push_back(std::move(gradients));
    } else {
      gradient = whole_gradient(*task.layout, table, gradients);
    }
    return {gradient, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

bool fits(const at::Tensor& dense, int64_t batch) {
  if (!dense.defined()) return true;
  return dense.is_cuda() && dense.scalar_type() == at::kFloat && dense.dim() == 2 && dense.size(0) == batch &&
         !dense.requires_grad();
}

}  // namespace

bool serves_features(const EmbeddingImpl& embedding) {
  const EmbeddingLayout& layout = embedding.layout();
  if (!embedding.is_dense() || embedding.options.bits != Bits::kFloat) return false;
  const at::Tensor& table = embedding.weight;
  return table.is_cuda() && table.scalar_type() == at::kFloat && table.is_contiguous() && !layout.multi &&
         layout.slots == layout.field_count() && layout.dim <= cuda::kLargestDim &&
         layout.rows < std::numeric_limits<uint32_t>::max();
}

std::optional<EmbeddingFeatures> EmbeddingImpl::features(const at::Tensor& ids, const at::Tensor& dense,
                                                         bool interaction) {
  if (!serves_features(*this) || has_hook() || lookup_hook_) return std::nullopt;
  if (!ids.is_cuda() || ids.scalar_type() != at::kInt || ids.dim() != 2 || ids.size(1) != slot_count() ||
      ids.numel() > std::numeric_limits<int32_t>::max() || !cuda::fits(cuda::place_code(ids.size(1)), ids.size(0)) ||
      !fits(dense, ids.size(0))) {
    return std::nullopt;
  }
  layout_on(ids.device());
  const FeatureTask task{.layout = layout_,
                         .inbox = row_updates_.on_device,
                         .type = feature_type,
                         .interaction = interaction,
                         .trains = at::GradMode::is_enabled() && weight.requires_grad(),
                         .check_ids = check_ids};
  const auto optional = dense.defined() ? std::optional(dense.contiguous()) : std::nullopt;
  const variable_list output = FeatureFunction::apply(weight, ids.contiguous(), optional, task);
  return EmbeddingFeatures{output[0], output.size() > 1 ? output[1] : at::Tensor()};
}

}  // namespace afm::nn
