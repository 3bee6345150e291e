#include "libafm/nn/mlp.h"

#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>
#include <torch/nn/modules/container/modulelist.h>

#include "libafm/core/fail.h"
#include "libafm/nn/fused_mlp.h"
#include "libafm/nn/hidden_activation.h"
#include "libafm/nn/module_list.h"

namespace afm::nn {
namespace {

MlpOptions checked(MlpOptions options) {
  if (options.in_features < 1) {
    fail<std::invalid_argument>("MlpOptions.in_features must be at least 1, got {}", options.in_features);
  }
  for (const int64_t width : options.hidden) {
    if (width < 1) fail<std::invalid_argument>("MlpOptions.hidden must each be at least 1, got {}", width);
  }
  if (options.out_features < 0) {
    fail<std::invalid_argument>("MlpOptions.out_features must be at least 0, got {}", options.out_features);
  }
  if (!(options.dropout >= 0 && options.dropout < 1)) {
    fail<std::invalid_argument>("MlpOptions.dropout must be in [0, 1), got {}", options.dropout);
  }
  return options;
}

}  // namespace

MlpImpl::MlpImpl(MlpOptions chosen) : options(checked(std::move(chosen))) { reset(); }

void MlpImpl::reset() {
  const auto linears = register_module("layers", torch::nn::ModuleList());
  const auto batch_norms = options.batch_norm ? register_module("norms", torch::nn::ModuleList()) : nullptr;
  int64_t width = options.in_features;
  for (const int64_t next : options.hidden) {
    linears->push_back(Linear(width, next));
    if (options.batch_norm) batch_norms->push_back(torch::nn::BatchNorm1d(next));
    width = next;
  }
  if (options.out_features > 0) head = register_module("head", Linear(width, options.out_features));
  adopt_children();
}

std::shared_ptr<torch::nn::Module> MlpImpl::clone(const std::optional<torch::Device>& device) const {
  auto copy = Cloneable::clone(device);
  dynamic_cast<MlpImpl&>(*copy).adopt_children();
  return copy;
}

void MlpImpl::adopt_children() {
  layers = typed_children<Linear>(*this, "layers");
  norms = typed_children<torch::nn::BatchNorm1d>(*this, "norms");
}

at::Tensor MlpImpl::forward(const at::Tensor& x) {
  check_input(x);
  if (const auto y = fused(x)) return *y;
  return layer_by_layer(x);
}

at::Tensor MlpImpl::forward_beside(const at::Tensor& x, const at::Tensor& beside, const at::Tensor& beside_bias) {
  check_input(x);
  TORCH_CHECK(options.out_features == 1, "Mlp: forward_beside() needs one output, got ", options.out_features);
  if (const auto logit = fused(x, beside, beside_bias)) return logit->squeeze(1);
  return beside + beside_bias + layer_by_layer(x).squeeze(1);
}

void MlpImpl::check_input(const at::Tensor& x) const {
  TORCH_CHECK(x.dim() == 2 && x.size(1) == options.in_features, "Mlp: expected [B, ", options.in_features, "], got ",
              x.sizes());
}

at::Tensor MlpImpl::layer_by_layer(at::Tensor x) {
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (norms.empty() && x.is_cuda()) {
      x = layers[i]->forward_relu(x);
      if (is_training() && options.dropout > 0) x = at::dropout(x, options.dropout, /*train=*/true);
      continue;
    }
    x = hidden_activation(layers[i]->forward(x), norms.empty() ? nullptr : norms[i].get(), options.dropout,
                          is_training());
  }
  return head ? head->forward(x) : x;
}

std::optional<at::Tensor> MlpImpl::fused(const at::Tensor& x, const at::Tensor& beside,
                                         const at::Tensor& beside_bias) const {
  if (!x.is_cuda() || !norms.empty() || (is_training() && options.dropout > 0)) return std::nullopt;
  std::vector<PlainLayer> hidden;
  for (const Linear& layer : layers) {
    if (!layer->is_plain()) return std::nullopt;
    hidden.push_back({layer->weight, layer->bias});
  }
  if (!head) return fused_mlp(x, hidden, {});
  if (!head->is_plain() || head->options.out_features != 1) return std::nullopt;
  return fused_mlp(x, hidden, {head->weight, head->bias, beside, beside_bias});
}

int64_t MlpImpl::output_width() const {
  if (options.out_features > 0) return options.out_features;
  return options.hidden.empty() ? options.in_features : options.hidden.back();
}

}  // namespace afm::nn
