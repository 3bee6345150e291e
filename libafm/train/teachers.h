#pragma once

// Private: what the teachers say.

#include <ATen/core/Tensor.h>

#include "libafm/data/dataset.h"
#include "libafm/train/trainer.h"

namespace afm {

// The mean of their logits for each training row [N], on `device`: it never changes, so one pass gives
// it for all epochs. Undefined without teachers, or when their term weighs nothing.
at::Tensor logits_of_teachers(const TrainOptions& options, const Dataset& train_set, at::Device device);

// The teachers' term of the loss: student and teacher logits and labels, [B] each.
at::Tensor teaching_loss(const TrainOptions& options, const at::Tensor& student, const at::Tensor& teacher,
                         const at::Tensor& labels, double click_rate);

}  // namespace afm
