#include "libafm/nn/latent_interaction.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>
#include <torch/types.h>

#include "libafm/core/fail.h"
#include "libafm/nn/interaction.h"

namespace afm::nn {
namespace {

LatentMachineOptions checked_machine(LatentMachineOptions options) {
  if (options.ranks.empty()) fail<std::invalid_argument>("LatentMachineOptions.ranks must name a field, got none");
  for (const int64_t rank : options.ranks) {
    if (rank < 0) fail<std::invalid_argument>("LatentMachineOptions.ranks must each be at least 0, got {}", rank);
  }
  if (options.embedding_dim < 0) {
    fail<std::invalid_argument>("LatentMachineOptions.embedding_dim must be at least 0, got {}", options.embedding_dim);
  }
  return options;
}

LatentCrossOptions checked_latent_cross(LatentCrossOptions options) {
  if (options.in_features < 1) {
    fail<std::invalid_argument>("LatentCrossOptions.in_features must be at least 1, got {}", options.in_features);
  }
  if (options.layers < 1) {
    fail<std::invalid_argument>("LatentCrossOptions.layers must be at least 1, got {}", options.layers);
  }
  return options;
}

// Where each of F * widest coordinates lies among the latents; undefined when they lie in order.
at::Tensor padding_index(const std::vector<int64_t>& ranks, int64_t latents, int64_t widest) {
  std::vector<int64_t> index;
  int64_t first = 0;
  for (const int64_t rank : ranks) {
    for (int64_t c = 0; c < widest; ++c) index.push_back(c < rank ? first + c : latents);
    first += rank;
  }
  return static_cast<int64_t>(index.size()) == latents ? at::Tensor() : at::tensor(index, at::kLong);
}

}  // namespace

LatentMachineImpl::LatentMachineImpl(LatentMachineOptions chosen) : options(checked_machine(std::move(chosen))) {
  reset();
}

void LatentMachineImpl::reset() {
  latents_ = 0;
  for (const int64_t rank : options.ranks) latents_ += rank;
  widest_ = *std::ranges::max_element(options.ranks);
  index_ = padding_index(options.ranks, latents_, widest_);
  if (options.embedding_dim == 0) return;
  const double scale = 1.0 / std::sqrt(static_cast<double>(options.embedding_dim));
  basis = register_parameter("basis", at::randn({latents_, options.embedding_dim}) * scale);
}

at::Tensor LatentMachineImpl::padded(const at::Tensor& by_latent, int64_t dim) {
  if (!index_.defined()) return by_latent;
  if (index_.device() != by_latent.device()) index_ = index_.to(by_latent.device());
  const at::Tensor with_zero =
      dim == 0 ? at::constant_pad_nd(by_latent, {0, 0, 0, 1}) : at::constant_pad_nd(by_latent, {0, 1});
  return with_zero.index_select(dim, index_);
}

at::Tensor LatentMachineImpl::forward(const at::Tensor& latents) {
  TORCH_CHECK(latents.dim() == 2 && latents.size(1) == latents_, "LatentMachine: expected [B, ", latents_, "], got ",
              latents.sizes());
  const auto fields = static_cast<int64_t>(options.ranks.size());
  const at::Tensor z = padded(latents, 1).view({latents.size(0), fields, widest_});
  if (options.embedding_dim == 0) return factorization_machine(z);
  const at::Tensor bases = padded(basis, 0).view({fields, widest_, options.embedding_dim});
  const at::Tensor by_field = z.transpose(0, 1);  // [F, B, k]
  const at::Tensor own =
      at::bmm(by_field, at::bmm(bases, bases.transpose(1, 2))).mul(by_field).sum(at::IntArrayRef{0, 2});
  return at::mm(latents, basis).square().sum(1).sub(own).mul(0.5);
}

LatentCrossImpl::LatentCrossImpl(LatentCrossOptions chosen) : options(checked_latent_cross(chosen)) { reset(); }

void LatentCrossImpl::reset() {
  const int64_t n = options.in_features;
  const double scale = std::sqrt(2.0 / static_cast<double>(n + 1));  // as the cross network of vectors
  weight = register_parameter("weight", at::randn({options.layers + 1, n}) * scale);
  bias = register_parameter("bias", at::zeros({options.layers + 1}));
  shift = register_parameter("shift", at::zeros({options.layers + 1}));
}

at::Tensor LatentCrossImpl::forward(const at::Tensor& u) {
  TORCH_CHECK(u.dim() == 2 && u.size(1) == options.in_features, "LatentCross: expected [B, ", options.in_features,
              "], got ", u.sizes());
  const at::Tensor p = at::linear(u, weight, bias);   // [B, L + 1]
  at::Tensor a = at::ones({u.size(0)}, u.options());  // [B]
  for (int64_t l = 0; l < options.layers; ++l) a = at::addcmul(a, a, p.select(1, l)) + shift[l];
  return a * p.select(1, options.layers) + shift[options.layers];
}

}  // namespace afm::nn
