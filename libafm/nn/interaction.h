#pragma once

// How fields meet: the factorization machine and the cross network.

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <type_traits>
#include <vector>

#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include "libafm/nn/linear.h"

namespace afm::nn {

// sum_{i<j} <e_i, e_j> = 1/2 (||sum_j e_j||^2 - sum_j ||e_j||^2) (Rendle 2010). values [B, F, D] -> [B].
at::Tensor factorization_machine(const at::Tensor& values);

// kVector (DCN, Wang et al. 2017): x_{l+1} = x_0 (x_l . w_l) + b_l + x_l.
// kMatrix (DCN-V2, Wang et al. 2021): x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, elementwise product.
enum class CrossForm { kVector, kMatrix };
constexpr std::array<std::string_view, 2> enum_names(std::type_identity<CrossForm>) { return {"vector", "matrix"}; }

struct CrossNetOptions {
  int64_t in_features = 1;  // n
  int64_t layers = 3;       // L, at least 1
  CrossForm form = CrossForm::kVector;
  bool operator==(const CrossNetOptions&) const = default;
};

class CrossNetImpl : public torch::nn::Cloneable<CrossNetImpl> {
 public:
  explicit CrossNetImpl(CrossNetOptions options);
  void reset() override;
  std::shared_ptr<torch::nn::Module> clone(const std::optional<torch::Device>& device = std::nullopt) const override;
  at::Tensor forward(const at::Tensor& x0);  // [B, n] -> [B, n]
  // forward(x0) row' [B] for a row [1, n] of a layer behind; the vector form need not compute forward() for it. And x0
  // itself: who else reads it takes it from here, so that on a GPU the gradients of both meet in one pass.
  struct Projection {
    at::Tensor x0, score;
  };
  Projection project(const at::Tensor& x0, const at::Tensor& row);

  CrossNetOptions options;
  at::Tensor weight, bias;     // kVector: [L, n], [L, n]
  std::vector<Linear> layers;  // kMatrix: layers.0, ...

 private:
  Projection cross_with_matrices(const at::Tensor& x0);  // with forward(x0) as the score
};
TORCH_MODULE(CrossNet);

}  // namespace afm::nn
