#pragma once

// Private: the backward pass of bias and ReLU on a GPU. All pointers are device memory.

#include <cstddef>
#include <cstdint>

#include "libafm/cuda/status.h"

namespace afm::cuda {

struct ReluGradient {
  const void *incoming, *output;  // [rows, columns] of `element`: gradient of relu(z), and relu(z)
  void* outgoing;                 // [rows, columns] gradient of z; may be `incoming`
  float* bias;                    // [columns] its sums over rows, in an order of their own: equal input, equal bits
  int64_t rows, columns;
  Element element;
  void* scratch;  // relu_scratch() bytes
};
size_t relu_scratch(int64_t rows, int64_t columns);
Status relu_gradient(const ReluGradient& task, Stream stream);

// Mean over rows of softplus(s) - t s, and its gradient.
struct Logloss {
  const float *logits, *labels;  // [rows]
  float* gradient;               // [rows] (sigmoid(s) - t) / rows
  float* loss;                   // [1]
  int64_t rows;
  void* scratch;  // logloss_scratch() bytes
};
size_t logloss_scratch(int64_t rows);
Status logloss(const Logloss& task, Stream stream);

}  // namespace afm::cuda
