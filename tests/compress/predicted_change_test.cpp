#include "libafm/compress/predicted_change.h"

#include <cmath>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>

#include <torch/torch.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/compress/comparison.h"
#include "libafm/compress/factorize.h"
#include "libafm/compress/plan.h"
#include "libafm/nn/quantize.h"
#include "tests/compress/mlp_model.h"
#include "tests/compress/ranker.h"
#include "tests/core/temporary_folder.h"

namespace afm::testing {
namespace {

constexpr double kIdentity = 1e-10;  // relative, of sums in float64

double off_by(double found, double wanted) { return std::abs(found - wanted) / wanted; }

// 1/2 E[p (1 - p) ds^2]
double quadratic(const at::Tensor& logits, const at::Tensor& moved) {
  const at::Tensor p = logits.sigmoid();
  return 0.5 * (p * (1 - p) * moved.square()).mean().item<double>();
}

at::Tensor rounding_error(const at::Tensor& weight, Bits bits, ScaleBy by) {
  return nn::fake_quantize(weight, bits, nn::matrix_groups(weight.size(0), weight.size(1), by)) - weight;
}

// logit = x w' + b
nn::Linear linear_logit(const at::Tensor& weight, Bits bits, ScaleBy by = ScaleBy::kRow) {
  nn::Linear layer(nn::LinearOptions{.in_features = weight.size(1), .out_features = 1, .bits = bits, .scale = by});
  layer->to(torch::kDouble);
  const torch::NoGradGuard no_grad;
  layer->weight.copy_(weight);
  return layer;
}

NextLogits logits_on(nn::Linear layer, const at::Tensor& rows) {
  return batches_of(rows, 64, [layer](const at::Tensor& x) mutable { return layer(x).squeeze(1); });
}

PredictedChange change_of(nn::Linear before, nn::Linear after, const at::Tensor& rows) {
  return predicted_change(*before, logits_on(before, rows), *after, logits_on(after, rows));
}

TEST_CASE("the rounding of a linear logit loses 1/2 E[p (1 - p) (dw' x)^2]") {
  torch::manual_seed(1);
  const Bits bits = GENERATE(Bits::kInt8, Bits::kInt4);
  const auto by = GENERATE(ScaleBy::kRow, ScaleBy::kColumn);
  const auto weight = torch::randn({1, 20}, torch::kDouble);
  const auto x = torch::randn({300, 20}, torch::kDouble) + 1.0;
  const auto change = change_of(linear_logit(weight, Bits::kFloat), linear_logit(weight, bits, by), x);
  const auto error = rounding_error(weight, bits, by);
  const auto logits = torch::mv(x, weight[0]);
  CHECK(change.rows == 300);
  CHECK(off_by(change.layers.at(""), quadratic(logits, torch::mv(x, error[0]))) < kIdentity);
  CHECK(off_by(change.together, change.sum()) < kIdentity);
  // Control: inputs around their mean, which forgets that rounding moves the mean of the output.
  CHECK(off_by(change.together, quadratic(logits, torch::mv(x - x.mean(0), error[0]))) > 1e-2);
}

TEST_CASE("over weights that may lie anywhere in a step, rounding loses scale^2 / 12 of each on average") {
  torch::manual_seed(2);
  constexpr int64_t kInputs = 200;
  const auto x = torch::randn({200, kInputs}, torch::kDouble);
  double found = 0.0, expected = 0.0;
  for (int draw = 0; draw < 100; ++draw) {
    const auto weight = 0.01 * (2.0 * torch::rand({1, kInputs}, torch::kDouble) - 1.0);
    const auto groups = nn::matrix_groups(1, kInputs, ScaleBy::kRow);
    const double scale = nn::store_integers(weight, Bits::kInt4, groups).scale.item<float>();
    found += change_of(linear_logit(weight, Bits::kFloat), linear_logit(weight, Bits::kInt4), x).together;
    const auto p = torch::mv(x, weight[0]).sigmoid();
    expected += 0.5 * scale * scale / 12.0 * (p * (1 - p) * x.square().sum(1)).mean().item<double>();
  }
  CHECK(off_by(found, expected) < 0.05);
  CHECK(off_by(found, 4.0 * expected) > 0.05);  // control: every weight half a step away
}

// Every layer of a ranker rounded: used twice, multi-valued, with wide weights, reached by no batch.
Ranker rounded_ranker(Ranker exact, Bits bits) {
  Ranker rounded = make_ranker();
  const torch::NoGradGuard no_grad;
  for (const auto& [path, layer] : nn::layers_of(*rounded)) layer->reshape({.bits = bits});
  const auto from = exact->named_parameters();
  for (auto& item : rounded->named_parameters()) item.value().copy_(from[item.key()]);
  return rounded;
}

// Weight of each layer of `rounded` as it is computed with.
std::map<std::string, at::Tensor> rounded_weights(Ranker rounded) {
  std::map<std::string, at::Tensor> weights;
  for (const auto& [path, layer] : nn::layers_of(*rounded)) {
    if (auto* linear = dynamic_cast<nn::LinearImpl*>(layer)) {
      weights[path] = linear->weight.detach() +
                      rounding_error(linear->weight.detach(), linear->options.bits, linear->options.scale);
      continue;
    }
    auto& embedding = dynamic_cast<nn::EmbeddingImpl&>(*layer);
    std::vector<at::Tensor> tables;
    for (int64_t j = 0; j < embedding.field_count(); ++j) tables.push_back(embedding.table(j));
    weights[path] = torch::cat({torch::cat(tables), embedding.wide_weights().unsqueeze(1)}, 1);
  }
  return weights;
}

// dlogit along the errors of the layers that `counts` says, by a difference of float64 logits.
template <typename Counts>
at::Tensor moved_logits(Ranker exact, Ranker rounded, const at::Tensor& ids, Counts counts) {
  constexpr double kStep = 1e-6;
  const torch::NoGradGuard no_grad;
  const auto targets = rounded_weights(rounded);
  const auto at_step = [&](double step) {
    Ranker moved = make_ranker();
    const auto from = exact->named_parameters();
    for (auto& item : moved->named_parameters()) item.value().copy_(from[item.key()]);
    for (const auto& [path, layer] : nn::layers_of(*moved)) {
      if (!counts(path)) continue;
      auto* linear = dynamic_cast<nn::LinearImpl*>(layer);
      const at::Tensor weight = linear ? linear->weight : dynamic_cast<nn::EmbeddingImpl&>(*layer).weight;
      weight.add_(targets.at(path) - weight, step);
    }
    return moved(ids);
  };
  return (at_step(kStep) - at_step(-kStep)) / (2.0 * kStep);
}

NextLogits logits_on(Ranker ranker, const at::Tensor& ids) {
  return batches_of(ids, 100, [ranker](const at::Tensor& rows) mutable { return ranker(rows); });
}

TEST_CASE("each layer and all together lose what the logit's derivative along their errors says") {
  auto exact = make_ranker(), rounded = rounded_ranker(exact, GENERATE(Bits::kInt8, Bits::kInt4));
  const auto ids = make_ids(250);
  const auto change = predicted_change(*exact, logits_on(exact, ids), *rounded, logits_on(rounded, ids));
  const torch::NoGradGuard no_grad;
  const auto logits = exact(ids);
  CHECK(change.layers.size() == 5);
  for (const auto& [path, loss] : change.layers) {
    const auto alone = moved_logits(exact, rounded, ids, [&](const std::string& each) { return each == path; });
    if (path == "spare") {
      CHECK(loss == 0.0);
    } else {
      CHECK(off_by(loss, quadratic(logits, alone)) < 1e-5);
    }
  }
  const auto all = moved_logits(exact, rounded, ids, [](const std::string&) { return true; });
  CHECK(off_by(change.together, quadratic(logits, all)) < 1e-5);
  // Control: the layers share what they do to the logit, so their sum is another number.
  CHECK(off_by(change.sum(), change.together) > 1e-3);
}

TEST_CASE("a prediction comes true where the change is small, and the measured one is that of a comparison") {
  const auto exact = make_mlp_model();
  const auto dataset = tiny_dataset(400);
  const RankPlan plan = {{"embedding", {.bits = Bits::kInt8}},
                         {"mlp.layers.0", {.bits = Bits::kInt8}},
                         {"mlp.layers.1", {.bits = Bits::kInt8}},
                         {"mlp.layers.2", {.bits = Bits::kInt8}}};
  const auto rounded = with_bits(*exact, plan);
  const auto change = predicted_change(*exact, *rounded, dataset);
  CHECK(off_by(change.measured, compare(*exact, *rounded, dataset).mean_kl) < kIdentity);
  CHECK(off_by(change.together, change.measured) < 0.05);
  CHECK(off_by(0.5 * change.together, change.measured) > 0.05);  // control
  CHECK(change.layers.at("mlp.head") == 0.0);
}

TEST_CASE("factor pairs are a change of layers too, each predicted as the plan does where nothing depends on it") {
  const auto model = make_mlp_model();
  const auto dataset = tiny_dataset(400);
  const auto statistics = full_statistics(*model, dataset);
  const RankPlan plan = {{"mlp.layers.1", {.ranks = {10}}}};
  const auto change = predicted_change(*model, *factorize(*model, statistics, plan), dataset);
  CHECK(off_by(change.together, change.layers.at("mlp.layers.1")) < kIdentity);
  // The plan takes gradients and errors for independent, which they nearly are.
  CHECK(off_by(predicted_logloss(statistics, plan), change.together) < 0.5);
}

TEST_CASE("a copy with other bits computes with the same floats, rounded once or not at all") {
  const auto model = make_mlp_model();
  const auto dataset = tiny_dataset(100);
  const auto statistics = full_statistics(*model, dataset);
  RankPlan integers = {{"embedding", {.ranks = {3, 2}, .bits = Bits::kInt4, .scale = ScaleBy::kColumn}},
                       {"mlp.layers.0", {.ranks = {4}, .bits = Bits::kInt8}},
                       {"mlp.layers.1", {.bits = Bits::kInt4}}};
  RankPlan floats = integers;
  for (auto& [path, layer] : floats) {
    layer.bits = Bits::kFloat;
    layer.scale = ScaleBy::kRow;
  }
  const auto rounded = factorize(*model, statistics, integers), exact = factorize(*model, statistics, floats);
  const auto logits = [&](Model& each) {
    const torch::NoGradGuard no_grad;
    return each.forward(dataset.range(0, 100));
  };
  CHECK(torch::equal(logits(*with_bits(*rounded, {})), logits(*exact)));
  CHECK(torch::equal(logits(*with_bits(*exact, integers)), logits(*rounded)));
  CHECK_FALSE(torch::equal(logits(*exact), logits(*rounded)));
  CHECK((nn::rank_plan_of(*with_bits(*exact, integers)) == nn::rank_plan_of(*rounded)));
}

TEST_CASE("models whose layers do not correspond are refused, and no hook of a refusal stays behind") {
  const auto model = make_mlp_model(), narrow = make_mlp_model({.hidden = {14, 11, 10}});
  const auto headless = make_mlp_model({.head = false});
  const auto dataset = tiny_dataset(50);
  const auto refusal = [&](Model& other) {
    return message_of<std::invalid_argument>([&] { predicted_change(*model, other, dataset); });
  };
  CHECK(refusal(*narrow) ==
        "predicted_change: layer 'mlp.layers.2' must read the same input in both models, 12 wide, got 11");
  CHECK(refusal(*headless) == "predicted_change: layer 'mlp.head' must be in both models, and of one kind");
  const auto again = predicted_change(*model, *with_bits(*model, {}), dataset);
  CHECK(again.sum() == 0.0);
  CHECK(again.measured == 0.0);
}

}  // namespace
}  // namespace afm::testing
