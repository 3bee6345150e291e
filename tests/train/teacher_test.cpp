#include <memory>

#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include "libafm/metrics/metrics.h"
#include "libafm/metrics/scores.h"
#include "libafm/train/loss.h"
#include "libafm/train/trainer.h"
#include "tests/train/planted.h"

using afm::testing::fresh_network;
using afm::testing::Logistic;
using afm::testing::Network;
using afm::testing::planted_clicks;
using Catch::Matchers::WithinAbs;

namespace {

double kl(afm::Model& teacher, afm::Model& student, const afm::Dataset& dataset) {
  return afm::distillation_loss(afm::predict(student, dataset), afm::predict(teacher, dataset), 1.0).item<double>();
}

// A teacher that knows the clicks' model better than a few rows tell.
std::shared_ptr<Logistic> good_teacher() {
  auto teacher = std::make_shared<Logistic>();
  const auto rows = planted_clicks(20000, 5).dataset;
  afm::train(*teacher, rows, rows, {.epochs = 5, .batch_size = 500, .learning_rate = 2e-2});
  return teacher;
}

}  // namespace

TEST_CASE("a teacher draws the student towards its logits and stays as it is") {
  const auto teacher = good_teacher();
  const auto state = afm::copy_of(*teacher);
  const auto few = planted_clicks(1000, 1).dataset, valid = planted_clicks(4000, 2).dataset;
  const auto student_of = [&](const std::vector<std::shared_ptr<afm::Model>>& of) {
    const auto student = fresh_network();
    afm::train(
        *student, few, valid,
        {.epochs = 20, .batch_size = 100, .learning_rate = 1e-2, .patience = 0, .distillation = 4, .teachers = of});
    return student;
  };
  const auto taught = student_of({teacher}), alone = student_of({});
  CHECK(kl(*teacher, *taught, valid) < 0.8 * kl(*teacher, *alone, valid));
  CHECK(afm::testing::same_bytes(*teacher, *state));
  CHECK(teacher->is_training());
}

TEST_CASE("the teacher's answer to each row meets that row, in any order") {
  const auto rows = planted_clicks(500, 1).dataset;
  Logistic model;
  const auto teacher = std::make_shared<Logistic>();
  {
    const torch::NoGradGuard no_grad;
    teacher->embedding->weight.normal_();
    teacher->bias.fill_(0.5);
  }
  // Steps too small to change the model: the loss of the epoch is that of the start.
  const auto history = afm::train(model, rows, rows,
                                  {.epochs = 1,
                                   .batch_size = 64,
                                   .learning_rate = 1e-30,
                                   .distillation = 2,
                                   .temperature = 3,
                                   .teachers = {teacher}});
  const double distilled =
      afm::distillation_loss(afm::predict(model, rows), afm::predict(*teacher, rows), 3).item<double>();
  CHECK(distilled > 0.1);
  CHECK_THAT(history.epochs[0].train_loss, WithinAbs(afm::evaluate(model, rows).logloss + 2 * distilled, 1e-5));

  // Equal logits for every row would hide a mixed-up order; with the model itself as teacher only the right order is 0.
  const auto self = std::make_shared<Logistic>();
  afm::load_state(*self, afm::state_of(*teacher), "the teacher");
  const auto own =
      afm::train(*self, rows, rows, {.epochs = 1, .batch_size = 64, .learning_rate = 1e-30, .teachers = {teacher}});
  CHECK_THAT(own.epochs[0].train_loss, WithinAbs(afm::evaluate(*self, rows).logloss, 1e-5));
}

TEST_CASE("several teachers are one whose logits are their mean") {
  const auto rows = planted_clicks(500, 1).dataset;
  const auto teacher_of = [](double scale) {
    const torch::NoGradGuard no_grad;
    torch::manual_seed(7);
    auto teacher = std::make_shared<Logistic>();
    teacher->embedding->weight.normal_().mul_(scale);
    teacher->bias.fill_(scale);
    return teacher;
  };
  // These logits are linear in the weights, so the mean of 1 and 3 times the weights is 2 times the weights.
  const auto loss_with = [&](const std::vector<std::shared_ptr<afm::Model>>& teachers) {
    Logistic model;
    return afm::train(model, rows, rows, {.epochs = 1, .batch_size = 64, .learning_rate = 1e-30, .teachers = teachers})
        .epochs[0]
        .train_loss;
  };
  CHECK_THAT(loss_with({teacher_of(1), teacher_of(3)}), WithinAbs(loss_with({teacher_of(2)}), 1e-5));
  CHECK(std::abs(loss_with({teacher_of(1), teacher_of(3)}) - loss_with({teacher_of(1)})) > 1e-3);
}

TEST_CASE("label preservation adds weight to the rows where the teacher is right and to no other") {
  const auto rows = planted_clicks(500, 1).dataset;
  const auto teacher = good_teacher();
  Logistic model;
  const auto history =
      afm::train(model, rows, rows,
                 {.epochs = 1, .batch_size = 64, .learning_rate = 1e-30, .label_preserving = 2, .teachers = {teacher}});
  const auto student_logits = afm::predict(model, rows), teacher_logits = afm::predict(*teacher, rows);
  const auto scores = afm::score(model, rows, {});
  const double rate = rows.click_rate();
  const auto right = torch::sigmoid(teacher_logits).gt(rate).eq(scores.labels.gt(rate)).to(torch::kFloat);
  CHECK(right.mean().item<double>() > 0.5);
  CHECK(right.mean().item<double>() < 1.0);
  const double expected = afm::distillation_loss(student_logits, teacher_logits, 1.0, 1.0 + 2.0 * right).item<double>();
  CHECK_THAT(history.epochs[0].train_loss, WithinAbs(afm::evaluate(model, rows).logloss + expected, 1e-5));
}
