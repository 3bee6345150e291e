#pragma once

// Private: cross networks on a GPU (nn/interaction.h). All pointers are device memory but the lists of layers.

#include <cstddef>
#include <cstdint>

#include "libafm/cuda/stripes.h"

namespace afm::cuda {

// The vector form with a row h behind it, score = <cross(x_0), h>. With a_l and B_l of Note [The vector form without
// its layers] it is a_L (x_0 . h) + B_L . h: L + 1 products a row, and no layer's output exists.
struct CrossRow {
  const void* x;               // [rows, columns] of `element`: x_0
  const float *weight, *bias;  // [layers, columns]
  const float* head;           // [columns]: h
  int64_t rows, columns;
  int layers;  // L in [1, kMostCrossLayers]
  Element element;
};
inline constexpr int kMostCrossLayers = 7;

// What the backward pass needs again.
struct CrossProducts {
  float* rows;       // [rows, L + 1]: x_0 . w_l, then x_0 . h
  float* constants;  // [L + 1]: B_l . w_l, then B_L . h
};
Status cross_row_forward(const CrossRow& task, const CrossProducts& products, float* score, Stream stream);

struct CrossRowGradient {
  const float* score;          // [rows]
  const void* x;               // [rows, columns] of `element`: of x_0 from elsewhere; null: none
  void* to_x;                  // both together; may be `x`
  float *to_weight, *to_bias;  // [layers, columns]
  float* to_head;              // [columns]
  void* scratch;               // cross_row_scratch() bytes
};
size_t cross_row_scratch(const CrossRow& task);
Status cross_row_backward(const CrossRow& task, const CrossProducts& products, const CrossRowGradient& gradient,
                          Stream stream);

// A layer of the matrix form, its product z = W x + b done: next = x + x_0 z. Values [count] of `element`.
struct CrossStep {
  const void *x0, *x, *z;
  void* next;
  int64_t count;
  Element element;
};
Status cross_step(const CrossStep& task, Stream stream);

// The gradient of x_0 of all layers: first + beside + sum_l incoming_l z_l, with `first` that of the first layer's x.
struct CrossInputGradient {
  const void *incoming[kMostCrossLayers], *z[kMostCrossLayers];  // of layer l's output; its product
  const void *first, *beside;                                    // `beside`: from elsewhere; null: none
  void* to_x0;                                                   // may be `first` or `beside`
  int layers;
  int64_t count;
  Element element;
};
Status cross_input_gradient(const CrossInputGradient& task, Stream stream);

}  // namespace afm::cuda
