#pragma once

// Private: the rest of a training step on a GPU. All pointers are device memory but those of the lists themselves.

#include <cstdint>

#include "libafm/cuda/status.h"

namespace afm::cuda {

struct AdamTensor {
  float* parameter;
  const float* gradient;
  float *mean, *square;
  const float* step;  // [1] of this step, from 1
  int64_t count;
  float l2;
};
struct Adam {
  const float* rate;  // [1] learning rate; null: `rate_value`
  float rate_value;
  double beta1, beta2;
  float epsilon;
};
// One step on all tensors in one launch, with the results of at::_fused_adam_ within rounding.
Status step_adam(const AdamTensor* tensors, int count, const Adam& adam, Stream stream);

// Rows `index` [rows] of ids [N, slots], dense [N, dense_count] and labels [N].
struct Gather {
  const int64_t* index;
  int64_t rows;
  const int32_t* ids;
  int64_t slots;
  const float* dense;  // null when dense_count is 0
  int64_t dense_count;
  const float* labels;
  int32_t* to_ids;
  float *to_dense, *to_labels;
};
Status gather(const Gather& task, Stream stream);

// sum += loss * rows, and finite_batches += 1 while the sum is finite.
struct LossSum {
  const float* loss;  // [1]
  int64_t rows;
  double* sum;              // [1]
  int64_t* finite_batches;  // [1]
};
Status add_loss(const LossSum& task, Stream stream);

}  // namespace afm::cuda
