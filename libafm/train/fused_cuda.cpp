#include "libafm/train/fused.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/csrc/autograd/custom_function.h>

#include "libafm/cuda/activation.h"
#include "libafm/cuda/training.h"
#include "libafm/nn/cuda_launch.h"
#include "libafm/train/step_history.h"

namespace afm {
namespace {

struct LoglossFunction : torch::autograd::Function<LoglossFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& logits,
                            const at::Tensor& labels) {
    const c10::cuda::CUDAGuard guard(logits.device());
    const at::Tensor gradient = at::empty_like(logits), loss = at::empty({}, logits.options());
    const at::Tensor scratch = nn::bytes_like(cuda::logloss_scratch(logits.size(0)), logits);
    nn::check_launch(cuda::logloss({.logits = logits.const_data_ptr<float>(),
                                    .labels = labels.const_data_ptr<float>(),
                                    .gradient = nn::floats_of(gradient),
                                    .loss = nn::floats_of(loss),
                                    .rows = logits.size(0),
                                    .scratch = scratch.mutable_data_ptr()},
                                   nn::stream_of(logits)));
    context->save_for_backward({gradient});
    return loss;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list& incoming) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "logloss_of: no second derivative in float32 on a GPU, use float64");
    return {context->get_saved_variables()[0] * incoming[0], at::Tensor()};
  }
};

bool is_vector(const at::Tensor& values) {
  return values.is_cuda() && values.scalar_type() == at::kFloat && values.dim() == 1 && values.size(0) > 0 &&
         values.is_contiguous();
}

bool is_device_array(const at::Tensor& values, at::ScalarType type) {
  return values.is_cuda() && values.scalar_type() == type && values.is_contiguous();
}

bool serves(const AdamSlot& slot) {
  for (const at::Tensor& tensor : {slot.parameter, slot.gradient, slot.mean, slot.square, slot.step}) {
    if (!is_device_array(tensor, at::kFloat)) return false;
  }
  return slot.gradient.sizes() == slot.parameter.sizes();
}

}  // namespace

std::optional<at::Tensor> fused_logloss(const at::Tensor& logits, const at::Tensor& labels) {
  if (!is_vector(logits) || !is_vector(labels) || labels.requires_grad()) return std::nullopt;
  return LoglossFunction::apply(logits, labels);
}

bool fused_loss_sum(const at::Tensor& loss, int64_t rows, const at::Tensor& loss_sum,
                    const at::Tensor& finite_batches) {
  if (!is_device_array(loss, at::kFloat) || !is_device_array(loss_sum, at::kDouble)) return false;
  const c10::cuda::CUDAGuard guard(loss.device());
  nn::check_launch(cuda::add_loss({.loss = loss.const_data_ptr<float>(),
                                   .rows = rows,
                                   .sum = loss_sum.mutable_data_ptr<double>(),
                                   .finite_batches = finite_batches.mutable_data_ptr<int64_t>()},
                                  nn::stream_of(loss)));
  return true;
}

bool fused_adam(const std::vector<AdamSlot>& slots, const at::Tensor& rate, double learning_rate) {
  if (slots.empty() || !std::ranges::all_of(slots, serves)) return false;
  std::vector<cuda::AdamTensor> tensors;
  for (const AdamSlot& slot : slots) {
    tensors.push_back({.parameter = nn::floats_of(slot.parameter),
                       .gradient = slot.gradient.const_data_ptr<float>(),
                       .mean = nn::floats_of(slot.mean),
                       .square = nn::floats_of(slot.square),
                       .step = slot.step.const_data_ptr<float>(),
                       .count = slot.parameter.numel(),
                       .l2 = static_cast<float>(slot.l2)});
  }
  const c10::cuda::CUDAGuard guard(slots[0].parameter.device());
  nn::check_launch(cuda::step_adam(tensors.data(), static_cast<int>(tensors.size()),
                                   {.rate = rate.defined() ? rate.const_data_ptr<float>() : nullptr,
                                    .rate_value = static_cast<float>(learning_rate),
                                    .beta1 = kAdamBeta1,
                                    .beta2 = kAdamBeta2,
                                    .epsilon = static_cast<float>(kAdamEpsilon)},
                                   nn::stream_of(slots[0].parameter)));
  return true;
}

std::optional<Batch> fused_gather(const Batch& all, const at::Tensor& index) {
  const int64_t rows = index.size(0), dense_count = all.dense.defined() ? all.dense.size(1) : 0;
  if (!is_device_array(index, at::kLong) || !is_device_array(all.ids, at::kInt) ||
      !is_device_array(all.label, at::kFloat) || (dense_count > 0 && !is_device_array(all.dense, at::kFloat))) {
    return std::nullopt;
  }
  const c10::cuda::CUDAGuard guard(index.device());
  const at::TensorOptions floats = all.label.options();
  const Batch batch{.ids = at::empty({rows, all.ids.size(1)}, all.ids.options()),
                    .dense = at::empty({rows, dense_count}, floats),
                    .label = at::empty({rows}, floats)};
  nn::check_launch(cuda::gather({.index = index.const_data_ptr<int64_t>(),
                                 .rows = rows,
                                 .ids = all.ids.const_data_ptr<int32_t>(),
                                 .slots = all.ids.size(1),
                                 .dense = dense_count > 0 ? all.dense.const_data_ptr<float>() : nullptr,
                                 .dense_count = dense_count,
                                 .labels = all.label.const_data_ptr<float>(),
                                 .to_ids = batch.ids.mutable_data_ptr<int32_t>(),
                                 .to_dense = nn::floats_of(batch.dense),
                                 .to_labels = nn::floats_of(batch.label)},
                                nn::stream_of(index)));
  return batch;
}

}  // namespace afm
