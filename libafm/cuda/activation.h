#pragma once

// Private: the backward pass of bias and ReLU or a factor, layers of one output, and the logloss on a GPU. All pointers
// are device memory.

#include <cstddef>
#include <cstdint>

#include "libafm/cuda/status.h"
#include "libafm/cuda/stripes.h"

namespace afm::cuda {

// A gradient that passes a gate, and its sums over rows.
struct GateGradient {
  const void *incoming, *gate;  // [rows, columns] of `element`
  void* outgoing;               // [rows, columns]; may be `incoming`
  float* bias;                  // [columns] sums of `outgoing`
  int64_t rows, columns;
  Element element;
  void* scratch;  // parts_bytes(rows, columns)
};
Status relu_gradient(const GateGradient& task, Stream stream);    // gate relu(z): through where it is positive
Status factor_gradient(const GateGradient& task, Stream stream);  // of gate * z: times the gate

// float32 -> bfloat16, several arrays in one launch: the parameters of layers.
struct Rounding {
  const float* from;
  void* to;
  int64_t count;
};
Status round_arrays(const Rounding* arrays, int count, Stream stream);

// A linear layer of one output, and what stands beside it: y = x weight + bias + beside + beside_bias.
struct Row {
  const void* x;             // [rows, columns] of `element`
  const float* weight;       // [columns]
  const float* bias;         // [1]; null: zero
  const float* beside;       // [rows]; null: zero
  const float* beside_bias;  // [1]; null: zero
  int64_t rows, columns;
  Element element;
};
Status row_forward(const Row& task, float* y, Stream stream);  // y [rows]
struct RowGradient {
  const float* incoming;  // [rows]
  void* to_x;             // like x; gated: through where x, a relu(z), is positive
  // Sums over rows in an order of their own: of the weight [columns] and bias [1]; gated: then of to_x [columns].
  float* sums;
  bool gated;
  void* scratch;  // parts_bytes(rows, sums_of_row(columns, gated))
};
inline int64_t sums_of_row(int64_t columns, bool gated) { return (gated ? 2 * columns : columns) + 1; }
Status row_backward(const Row& task, const RowGradient& gradient, Stream stream);

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
