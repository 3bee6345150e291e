#pragma once

// Private: gradients of the logit with respect to outputs of layers, without those of any parameter: a dense table
// would get a dense gradient.

#include <vector>

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/nn/module.h>

namespace afm {

// The places of outputs in the graph, taken down before anything overwrites them.
class OutputEdges {
 public:
  // Throws std::invalid_argument for an output without graph.
  void add(const at::Tensor& output);
  std::vector<torch::autograd::Edge> take();

 private:
  std::vector<torch::autograd::Edge> edges_;
};

// g_b = sqrt(p_b (1 - p_b)) dlogit_b / dy_b for each output y, undefined where the logit does not depend on it. logits:
// any shape; a logit that is not finite has weight 0.
std::vector<at::Tensor> weighted_gradients(const at::Tensor& logits, const std::vector<torch::autograd::Edge>& outputs);

// sum += g' g over the rows of g [B, m] or, for g [F, B, m], one for each F. Rows that are not finite count as zero.
void add_outer(at::Tensor& sum, const at::Tensor& gradients);

// Lets every parameter of a module tree take part in a graph, for as long as it lives: outputs behind frozen layers
// have gradients too.
class GraphScope {
 public:
  GraphScope(torch::nn::Module& module, bool active);
  ~GraphScope();
  GraphScope(const GraphScope&) = delete;
  GraphScope& operator=(const GraphScope&) = delete;

 private:
  std::vector<at::Tensor> frozen_;
};

}  // namespace afm
