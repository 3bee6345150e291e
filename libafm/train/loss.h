#pragma once

// Losses on logits. science.md 5.9.

#include <ATen/core/Tensor.h>

namespace afm {

// Mean over rows of softplus(s) - t s. logits [B], labels [B] -> scalar.
at::Tensor logloss_of(const at::Tensor& logits, const at::Tensor& labels);

// T^2 times the mean over rows of w KL(Bernoulli(sigmoid(teacher / T)) || Bernoulli(sigmoid(student / T))), from logits
// [B]; weights w [B], undefined for 1.
at::Tensor distillation_loss(const at::Tensor& student, const at::Tensor& teacher, double temperature,
                             const at::Tensor& weights = {});

}  // namespace afm
