#pragma once

// Private: matrix products of a hidden layer in bfloat16 with what lies around them in their epilogue. By CUTLASS, on
// GPUs of compute capability 9.0. Matrices are row-major device memory; sums are float32.

#include <cstddef>
#include <cstdint>

#include "libafm/cuda/status.h"

namespace afm::cuda {

// B rows, n columns in, m columns out.
struct LayerShape {
  int64_t rows, inputs, outputs;
};
// Whether this build and the current device have the products of this shape: both widths multiples of 8, and so wide
// that the tiles are not mostly empty. Pointers must be multiples of 16 bytes.
bool has_products(const LayerShape& shape);

struct LayerForward {
  LayerShape shape;
  const void *x, *weight;  // [B, n], [m, n]
  const float* bias;       // [m]
  void* y;                 // [B, m] relu(x weight' + bias)
};
Status layer_forward(const LayerForward& task, Stream stream);

// The gradient with respect to what the layer below gives before its ReLU, and to that layer's bias.
struct LayerGradient {
  LayerShape shape;
  const void *gradient, *weight;  // [B, m], [m, n]
  const void* x;                  // [B, n], the layer's input: relu(z)
  void* to_z;                     // [B, n] gradient weight where x is positive
  float* sums;                    // [n] of to_z over rows, in an order of their own
  void* scratch;                  // layer_gradient_scratch() bytes
};
size_t layer_gradient_scratch(const LayerShape& shape);
Status layer_gradient(const LayerGradient& task, Stream stream);

struct LayerWeightGradient {
  LayerShape shape;
  const void *gradient, *x;  // [B, m], [B, n]
  float* to_weight;          // [m, n] gradient' x
  void* scratch;             // weight_gradient_scratch() bytes
};
// Whether that is the way for this shape: the rows are shared out evenly, and their parts fill the device.
bool has_weight_gradient(const LayerShape& shape);
size_t weight_gradient_scratch(const LayerShape& shape);
Status layer_weight_gradient(const LayerWeightGradient& task, Stream stream);

}  // namespace afm::cuda
