#pragma once

// The deep part of a CTR model, as FuxiCTR's MLP_Block: Linear, batch norm, ReLU, dropout per hidden layer, and an
// optional output layer.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include <torch/nn/cloneable.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/pimpl.h>

#include "libafm/nn/linear.h"

namespace afm::nn {

struct MlpOptions {
  int64_t in_features = 1;                        // n
  std::vector<int64_t> hidden = {400, 400, 400};  // H of each hidden layer; may be empty
  int64_t out_features = 1;  // width of the output layer; 0 = none, the last hidden layer is the output
  bool batch_norm = true;
  double dropout = 0.0;  // share of units dropped, in [0, 1)
  bool operator==(const MlpOptions&) const = default;
};

class MlpImpl : public torch::nn::Cloneable<MlpImpl> {
 public:
  explicit MlpImpl(MlpOptions options);
  void reset() override;
  std::shared_ptr<torch::nn::Module> clone(const std::optional<torch::Device>& device = std::nullopt) const override;

  at::Tensor forward(const at::Tensor& x);  // [B, n] -> [B, out_features] or [B, H_last]
  // forward(x) + beside [B] + beside_bias [1] -> [B], where the output is one: the logit of a model with other parts.
  at::Tensor forward_beside(const at::Tensor& x, const at::Tensor& beside, const at::Tensor& beside_bias);
  int64_t output_width() const;

  MlpOptions options;
  std::vector<Linear> layers;                 // registered as layers.0, layers.1, ...
  std::vector<torch::nn::BatchNorm1d> norms;  // norms.0, ...
  Linear head{nullptr};                       // head

 private:
  void adopt_children();
  void check_input(const at::Tensor& x) const;
  at::Tensor layer_by_layer(at::Tensor x);
  // forward() or forward_beside(), where they are one function.
  std::optional<at::Tensor> fused(const at::Tensor& x, const at::Tensor& beside = {},
                                  const at::Tensor& beside_bias = {}) const;
};
TORCH_MODULE(Mlp);

}  // namespace afm::nn
