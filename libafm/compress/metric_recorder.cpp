#include "libafm/compress/metric_recorder.h"

#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/variable.h>

#include "libafm/core/fail.h"

namespace afm {
namespace {

constexpr int64_t kWide = 128;  // columns from which a product is taken in the gradients' own type

// Whether no sum of squares overflowed and what underflowed is below rounding.
bool is_within_float(const at::Tensor& product) {
  const double largest = product.diagonal(0, -2, -1).max().item<double>();
  return largest > 1e-20 && largest < 1e30;
}

}  // namespace

void OutputEdges::add(const at::Tensor& output) {
  if (!output.requires_grad()) {
    fail<std::invalid_argument>(
        "CollectOptions.metric must be false when next_logits switches gradients off, got true");
  }
  edges_.push_back(torch::autograd::impl::gradient_edge(output));
}

std::vector<torch::autograd::Edge> OutputEdges::take() { return std::exchange(edges_, {}); }

std::vector<at::Tensor> weighted_gradients(const at::Tensor& logits,
                                           const std::vector<torch::autograd::Edge>& outputs) {
  if (outputs.empty() || !logits.requires_grad()) return std::vector<at::Tensor>(outputs.size());
  const at::Tensor s = logits.detach().to(at::kDouble);
  const at::Tensor weight = at::sigmoid(s).mul_(at::sigmoid(-s)).sqrt_();
  const at::Tensor finite = at::where(s.isfinite(), weight, 0.0).to(logits.scalar_type());
  return torch::autograd::Engine::get_default_engine().execute({torch::autograd::impl::gradient_edge(logits)}, {finite},
                                                               /*keep_graph=*/false, /*create_graph=*/false,
                                                               /*accumulate_grad=*/false, outputs);
}

void add_outer(at::Tensor& sum, const at::Tensor& gradients) {
  at::Tensor g = gradients.size(-1) < kWide || !gradients.is_cpu() ? gradients.to(at::kDouble) : gradients;
  const at::Tensor total = g.sum(-1, /*keepdim=*/true);
  if (!total.isfinite().all().item<bool>()) g = at::where(g.isfinite().all(-1, /*keepdim=*/true), g, 0.0);
  at::Tensor product = at::matmul(g.transpose(-2, -1), g).to(at::kDouble);
  if (g.scalar_type() != at::kDouble && !is_within_float(product)) {
    g = g.to(at::kDouble);
    product = at::matmul(g.transpose(-2, -1), g);
  }
  sum = sum.defined() ? sum + product : product;
}

GraphScope::GraphScope(torch::nn::Module& module, bool active) {
  if (!active) return;
  for (const at::Tensor& parameter : module.parameters()) {
    if (parameter.requires_grad() || !parameter.is_floating_point()) continue;
    parameter.set_requires_grad(true);
    frozen_.push_back(parameter);
  }
}

GraphScope::~GraphScope() {
  for (const at::Tensor& parameter : frozen_) parameter.set_requires_grad(false);
}

}  // namespace afm
