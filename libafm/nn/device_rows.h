#pragma once

// Private: the rows that a batch reads of a dense table on a GPU, and their gradients, for EmbeddingImpl::features().

#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "libafm/nn/embedding.h"

namespace afm::nn {

// The gradients of one batch, place by place [b, f], not yet added up by row: an optimizer does that within its step.
struct DeviceRowGradients {
  int64_t batch = 0;                                // B
  at::Tensor rows = {};                             // [B F] int32 (unsigned) of each place; undefined: they are sorted
  at::Tensor sorted_rows = {}, sorted_places = {};  // [B F] int32: rows, and codes of the places (unsigned)
  at::Tensor input;  // [B, F D + Q] gradient of EmbeddingFeatures::input; undefined: zero
  at::Tensor score;  // [B] gradient of the score; undefined: zero
  at::Tensor sums;   // [B, D] sum_f e_f where fields interact, else undefined
};

// Adam with dense semantics at the cost of the rows that are read (train/device_lazy_adam.h): rows may be behind what
// it owes them, and lookups then compute with what they would be.
struct DeviceLazyAdam {
  at::Tensor means = {}, squares = {};  // like the table
  at::Tensor behind = {};  // [N] int32: the last step that each row has done; 0: no gradient has reached it
  at::Tensor count = {};   // [2] int32: steps done, and up to which of them no row is behind
  at::Tensor rates = {};   // [capacity] float32: their learning rates since then
  at::Tensor memory = {};  // of cuda::AdamHistory
  double l2 = 0.0;
};

// Where gradients are added up by atomics, in another order each time (libafm/cuda/row_slots.h).
struct DeviceRowSlots {
  at::Tensor slot_of = {};             // [N] int32
  at::Tensor row_of = {}, count = {};  // [capacity], [1] int32
  at::Tensor sums = {}, scores = {};   // [capacity, width], [capacity]
};

// What backward passes leave for who trains the table, and what lookups must know of him.
struct DeviceRowInbox {
  std::vector<DeviceRowGradients> parts;
  bool sorted = true;  // whether he wants the places sorted
  std::optional<DeviceLazyAdam> lazy;
};

// Whether features() exists for the embedding as it is now; hooks and ids apart.
bool serves_features(const EmbeddingImpl& embedding);

// All below only where it does. `table`: the embedding's weight.
at::Tensor whole_gradient(const EmbeddingLayout& layout, const at::Tensor& table, const DeviceRowGradients& rows);

struct DeviceAdagradStep {
  at::Tensor squares = {};  // [N, 1], with wide weights [N, 2]
  at::Tensor rate = {};     // [1] float32
  double scale = 1.0, l2 = 0.0, epsilon = 1e-8;
};
// `slots` serve rows that are not sorted, and grow with their batch.
void step_adagrad(const EmbeddingLayout& layout, const at::Tensor& table, const DeviceRowGradients& rows,
                  DeviceRowSlots& slots, const DeviceAdagradStep& step);

// capacity: steps that it can put off before catch_up().
DeviceLazyAdam fresh_lazy_adam(const EmbeddingLayout& layout, const at::Tensor& table, int64_t capacity, double l2);
// One step; rate: [1] float32.
void step_lazy_adam(const EmbeddingLayout& layout, const at::Tensor& table, const DeviceRowGradients& rows,
                    DeviceRowSlots& slots, const DeviceLazyAdam& adam, const at::Tensor& rate);
void step_lazy_adam(const EmbeddingLayout& layout, const at::Tensor& table, const at::Tensor& gradient,
                    const DeviceLazyAdam& adam, const at::Tensor& rate);  // of the whole table
// A step that reaches no row now.
void record_step(const DeviceLazyAdam& adam, const at::Tensor& rate);
void catch_up(const EmbeddingLayout& layout, const at::Tensor& table, const DeviceLazyAdam& adam);

}  // namespace afm::nn
