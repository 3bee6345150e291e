#include "libafm/train/fused_logloss.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/csrc/autograd/custom_function.h>

#include "libafm/cuda/activation.h"
#include "libafm/nn/cuda_launch.h"

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

}  // namespace

std::optional<at::Tensor> fused_logloss(const at::Tensor& logits, const at::Tensor& labels) {
  if (!is_vector(logits) || !is_vector(labels) || labels.requires_grad()) return std::nullopt;
  return LoglossFunction::apply(logits, labels);
}

}  // namespace afm
