#include "libafm/train/teachers.h"

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/metrics/metrics.h"
#include "libafm/train/loss.h"

namespace afm {
namespace {

at::Tensor logits_of_teacher(Model& teacher, const Dataset& train_set, at::Device device) {
  if (teacher.device() == device) return predict(teacher, train_set);
  const auto moved = copy_of(teacher);
  moved->to(device);
  return predict(*moved, train_set);
}

void check_teacher(const at::Tensor& logits, std::size_t number, std::size_t teachers) {
  const at::Tensor lost = logits.isfinite().logical_not().nonzero();
  if (lost.size(0) == 0) return;
  fail<DataError>("teacher {} of {} gives row {} of the training set no finite logit", number, teachers,
                  lost[0][0].item<int64_t>());
}

// Right is the label's side of the click rate: of one half nearly every row is on the lower side.
at::Tensor is_right(const at::Tensor& logits, const at::Tensor& labels, double click_rate) {
  return at::sigmoid(logits).gt(click_rate).eq(labels.gt(click_rate));
}

}  // namespace

at::Tensor logits_of_teachers(const TrainOptions& options, const Dataset& train_set, at::Device device) {
  if (options.teachers.empty() || options.distillation + options.label_preserving == 0) return {};
  at::Tensor sum;
  std::size_t number = 0;
  for (const auto& teacher : options.teachers) {
    const at::Tensor logits = logits_of_teacher(*teacher, train_set, device);
    check_teacher(logits, ++number, options.teachers.size());
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
