#pragma once

// How fields meet in a folded model: on the latents z = [z_1 .. z_F] [B, K] of Basis::kNone, K = k_1 + .. + k_F,
// without embeddings of width D. What the offsets of the embedding add is linear in z, and up to the model.

#include <cstdint>
#include <vector>

#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

namespace afm::nn {

struct LatentMachineOptions {
  std::vector<int64_t> ranks = {};  // [F] k_j, at least 0
  int64_t embedding_dim = 0;        // D, at least 1; 0: without bases
  bool operator==(const LatentMachineOptions&) const = default;
};

// The factorization machine sum_{i<j} <e_i, e_j> (Rendle 2010).
//   D > 0   e_j = basis_j' z_j, never computed: 1/2 (||z basis||^2 - sum_j z_j' (basis_j basis_j') z_j)
//   D = 0   e_j = z_j, missing coordinates being zero: the fields share an orthonormal basis
class LatentMachineImpl : public torch::nn::Cloneable<LatentMachineImpl> {
 public:
  explicit LatentMachineImpl(LatentMachineOptions options);
  void reset() override;
  at::Tensor forward(const at::Tensor& latents);  // [B, K] -> [B]

  LatentMachineOptions options;
  at::Tensor basis;  // [K, D]; undefined when D is 0

 private:
  at::Tensor padded(const at::Tensor& by_latent, int64_t dim);  // K -> F * widest, along `dim`

  int64_t latents_ = 0, widest_ = 0;
  at::Tensor index_;  // [F * widest] latent, K for none; undefined when all ranks are equal
};
TORCH_MODULE(LatentMachine);

struct LatentCrossOptions {
  int64_t in_features = 1;  // n = K + Q, at least 1
  int64_t layers = 3;       // L, at least 1
  bool operator==(const LatentCrossOptions&) const = default;
};

// The cross network of vectors (DCN, Wang et al. 2017) and the row of the output layer that reads it, as one number per
// row. Its output is x_L . v with x_l = a_l x_0 + B_l, so no layer needs x_0 itself:
//   p = weight u + bias,   a_0 = 1,   a_{l+1} = a_l (1 + p_l) + shift_l,   output = a_L p_L + shift_L
class LatentCrossImpl : public torch::nn::Cloneable<LatentCrossImpl> {
 public:
  explicit LatentCrossImpl(LatentCrossOptions options);
  void reset() override;
  at::Tensor forward(const at::Tensor& u);  // [B, n] latents and dense features -> [B]

  LatentCrossOptions options;
  at::Tensor weight, bias, shift;  // [L + 1, n], [L + 1], [L + 1]
};
TORCH_MODULE(LatentCross);

}  // namespace afm::nn
