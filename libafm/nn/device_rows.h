#pragma once

// Private: the rows that a batch reads of a dense table on a GPU, and their gradients, for EmbeddingImpl::features().

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/nn/embedding.h"

namespace afm::nn {

// The gradients of one batch, place by place [b, f], not yet added up by row: an optimizer does that within its step.
struct DeviceRowGradients {
  int64_t batch = 0;                                // B
  at::Tensor sorted_rows = {}, sorted_places = {};  // [B F] int32: rows, and codes of the places (unsigned)
  at::Tensor input;  // [B, F D + Q] gradient of EmbeddingFeatures::input; undefined: zero
  at::Tensor score;  // [B] gradient of the score; undefined: zero
  at::Tensor sums;   // [B, D] sum_f e_f where fields interact, else undefined
};

// What backward passes leave for who trains the table.
struct DeviceRowInbox {
  std::vector<DeviceRowGradients> parts;
};

// Whether features() exists for the embedding as it is now; hooks and ids apart.
bool serves_features(const EmbeddingImpl& embedding);

// The two below only where it does. `table`: the embedding's weight.
at::Tensor whole_gradient(const EmbeddingLayout& layout, const at::Tensor& table, const DeviceRowGradients& rows);

struct DeviceAdagradStep {
  at::Tensor squares = {};  // [N, 1], with wide weights [N, 2]
  at::Tensor rate = {};     // [1] float32
  double scale = 1.0, l2 = 0.0, epsilon = 1e-8;
};
void step_adagrad(const EmbeddingLayout& layout, const at::Tensor& table, const DeviceRowGradients& rows,
                  const DeviceAdagradStep& step);

}  // namespace afm::nn
