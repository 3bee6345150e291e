#include "libafm/train/teachers.h"

#include <ATen/ATen.h>

#include "libafm/metrics/metrics.h"
#include "libafm/train/loss.h"

namespace afm {
namespace {

at::Tensor logits_of_teacher(Model& teacher, const Dataset& train_set) {
  if (teacher.device() == train_set.device()) return predict(teacher, train_set);
  const auto moved = copy_of(teacher);
  moved->to(train_set.device());
  return predict(*moved, train_set);
}

// Right is the label's side of the click rate: of one half nearly every row is on the lower side.
at::Tensor is_right(const at::Tensor& logits, const at::Tensor& labels, double click_rate) {
  return at::sigmoid(logits).gt(click_rate).eq(labels.gt(click_rate));
}

}  // namespace

at::Tensor logits_of_teachers(const TrainOptions& options, const Dataset& train_set) {
  if (options.teachers.empty() || options.distillation + options.label_preserving == 0) return {};
  at::Tensor sum;
  for (const auto& teacher : options.teachers) {
    const at::Tensor logits = logits_of_teacher(*teacher, train_set);
    sum = sum.defined() ? sum + logits : logits;
  }
  return sum / static_cast<double>(options.teachers.size());
}

at::Tensor teaching_loss(const TrainOptions& options, const at::Tensor& student, const at::Tensor& teacher,
                         const at::Tensor& labels, double click_rate) {
  if (options.label_preserving == 0) {
    return options.distillation * distillation_loss(student, teacher, options.temperature);
  }
  const at::Tensor right = is_right(teacher, labels, click_rate).to(student.scalar_type());
  const at::Tensor weights = right * options.label_preserving + options.distillation;
  return distillation_loss(student, teacher, options.temperature, weights);
}

}  // namespace afm
