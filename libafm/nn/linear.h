#pragma once

// A drop-in for torch::nn::Linear that is dense or a pair of factors.
//   dense      y = W x + b
//   rank k     y = up g(down x + down_bias) + up_bias,  g the identity or ReLU (FactorActivation)

#include <cstdint>
#include <memory>
#include <optional>
#include <ostream>
#include <tuple>
#include <type_traits>
#include <vector>

#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include "libafm/core/fields.h"
#include "libafm/linalg/factors.h"
#include "libafm/nn/layer.h"

namespace afm::nn {

struct LinearOptions {
  int64_t in_features = 1;   // n, at least 1
  int64_t out_features = 1;  // m, at least 1
  bool bias = true;
  std::optional<int64_t> rank = std::nullopt;  // k in [0, min(n, m)]; none = dense
  FactorActivation activation = FactorActivation::kNone;
  Bits bits = Bits::kFloat;  // of `weight`, or of `down` and `up`
  ScaleBy scale = ScaleBy::kRow;
  bool operator==(const LinearOptions&) const = default;
};

constexpr auto field_list(std::type_identity<LinearOptions>) {
  return std::make_tuple(
      field("in_features", &LinearOptions::in_features, "Width of the input, n."),
      field("out_features", &LinearOptions::out_features, "Width of the output, m."),
      field("bias", &LinearOptions::bias, "Adds a bias; a factorized layer always has one."),
      field("rank", &LinearOptions::rank, "Rank k of the factor pair, in [0, min(n, m)]; none = dense."),
      field("activation", &LinearOptions::activation, "Between the factors: none, relu or shifted_relu."),
      field("bits", &LinearOptions::bits, "Of the weights: float, int8 or int4."),
      field("scale", &LinearOptions::scale, "One scale of the integers per row or column."));
}

class LinearImpl : public torch::nn::Cloneable<LinearImpl>, public Layer {
 public:
  LinearImpl(int64_t in_features, int64_t out_features)
      : LinearImpl(LinearOptions{.in_features = in_features, .out_features = out_features}) {}
  explicit LinearImpl(LinearOptions chosen);

  void reset() override;
  void reset_parameters() override;  // Xavier normal weights, zero biases (FuxiCTR)
  void pretty_print(std::ostream& stream) const override;
  void train(bool on = true) override;

  at::Tensor forward(const at::Tensor& x);       // [*, n] -> [*, m]
  at::Tensor forward_relu(const at::Tensor& x);  // relu(forward(x)), in one pass where that exists

  bool is_dense() const override { return !options.rank.has_value(); }
  // Whether forward() is weight and bias alone, with nobody watching: then others may do it in a pass of theirs.
  bool is_plain() const { return is_dense() && bias.defined() && !first_integers_ && !has_hook(); }
  LayerPlan plan() const override;
  void reshape(const LayerPlan& plan) override;
  // Becomes the pair `factors`; weight and bias are gone. dtype and device of the layer are kept.
  void set_factors(const Factors& factors, FactorActivation activation = FactorActivation::kNone);
  std::vector<IntegerParameter> integer_parameters() const override;

  LinearOptions options;
  at::Tensor weight, bias;                  // dense: [m, n], [m]; bias undefined without one
  at::Tensor down, down_bias, up, up_bias;  // rank k: [k, n], [k], [m, k], [m]

 private:
  // What is computed with: the parameter itself, or the values of its integers.
  at::Tensor values_of(const at::Tensor& parameter, const std::shared_ptr<IntegerWeight>& integers) const;
  void allocate(const at::TensorOptions& like);  // the parameters that `options` ask for, and no other
  void place(const char* name, at::Tensor& member, at::IntArrayRef shape, bool present, const at::TensorOptions& like);

  std::shared_ptr<IntegerWeight> first_integers_, second_integers_;  // of weight or down, and of up; null for floats
};
TORCH_MODULE(Linear);

}  // namespace afm::nn
