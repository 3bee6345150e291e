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
  // Runs that have the device to themselves together, this one among them. A product of many tiles takes the
  // multiprocessors that are there and leaves each soon; side by side, fewer of them for longer waste less. The numbers
  // are the same.
  int64_t runs = 1;
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

// The gradient with respect to what the layer below gives before its ReLU, and to that layer's bias; with x null, the
// gradient with respect to the layer's input.
struct LayerGradient {
  LayerShape shape;
  const void *gradient, *weight;  // [B, m], [m, n]
  const void* x;                  // [B, n], the layer's input: relu(z)
  void* to_z;                     // [B, n] gradient weight, where x is positive
  float* sums;                    // [n] of to_z over rows, in an order of their own; null with x
  void* scratch;                  // layer_gradient_scratch() bytes; null with x
};
// Whether the gradient with respect to an input is better made here than by a library: for small batches.
bool has_input_gradient(const LayerShape& shape);
size_t layer_gradient_scratch(const LayerShape& shape);
Status layer_gradient(const LayerGradient& task, Stream stream);

struct LayerWeightGradient {
  LayerShape shape;
  const void *gradient, *x;  // [B, m], [B, n]
  float* to_weight;          // [m, n] gradient' x
  void* scratch;             // weight_gradient_scratch() bytes
};
// The same, where the rows can be shared out evenly and their parts give the device work.
bool has_weight_gradient(const LayerShape& shape);
size_t weight_gradient_scratch(const LayerShape& shape);
Status layer_weight_gradient(const LayerWeightGradient& task, Stream stream);

}  // namespace afm::cuda
