#include "libafm/compress/comparison.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/cuda.h>
#include <nlohmann/json.hpp>

#include "libafm/compress/divergence.h"
#include "libafm/metrics/scores.h"

namespace afm {
namespace {

constexpr int64_t kBatchRows = 4096;
constexpr int64_t kLeastTimed = 5, kMostTimed = 50;

void wait_for(at::Device device) {
  if (device.is_cuda()) torch::cuda::synchronize(device.has_index() ? device.index() : -1);
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::ranges::nth_element(values, middle);
  return *middle;
}

double seconds_of_forward(Model& model, const Batch& batch) {
  wait_for(model.device());
  const auto start = std::chrono::steady_clock::now();
  model.forward(batch);
  wait_for(model.device());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double microseconds_per_row(Model& model, const Dataset& dataset) {
  const at::NoGradGuard no_grad;
  const EvaluationMode evaluation(model);
  const TrustedIds trusted(model);
  const int64_t rows = std::min(kBatchRows, dataset.size()), batches = dataset.size() / rows;
  const auto batch_at = [&](int64_t index) {
    const int64_t begin = index % batches * rows;
    return dataset.range(begin, begin + rows).to(model.device());
  };
  seconds_of_forward(model, batch_at(0));  // the first batch pays for memory and caches
  std::vector<double> seconds;
  for (int64_t i = 0; i < std::clamp(batches, kLeastTimed, kMostTimed); ++i) {
    seconds.push_back(seconds_of_forward(model, batch_at(i)));
  }
  return 1e6 * median(std::move(seconds)) / static_cast<double>(rows);
}

ModelReport report_from(Model& model, const Dataset& dataset, const Scores& scores) {
  return {{auc(scores.logits, scores.labels), logloss(scores.logits, scores.labels), dataset.size(), {}},
          parameter_count(model),
          byte_count(model),
          microseconds_per_row(model, dataset)};
}

double mean_of(const at::Tensor& values) { return values.to(at::kDouble).mean().item<double>(); }

double ratio_of(const Comparison& comparison) {
  return static_cast<double>(comparison.before.parameters) / static_cast<double>(comparison.after.parameters);
}

nlohmann::ordered_json report_json(const ModelReport& report) {
  return {{"auc", report.metrics.auc},   {"logloss", report.metrics.logloss},
          {"rows", report.metrics.rows}, {"parameters", report.parameters},
          {"bytes", report.bytes},       {"microseconds_per_row", report.microseconds_per_row}};
}

}  // namespace

ModelReport report_on(Model& model, const Dataset& dataset) {
  return report_from(model, dataset, score(model, dataset, {}));
}

Comparison compare(Model& before, Model& after, const Dataset& dataset) {
  const Scores base = score(before, dataset, {}), small = score(after, dataset, {});
  const at::Tensor s = base.logits.to(at::kDouble), t = small.logits.to(s.device(), at::kDouble);
  Comparison comparison{report_from(before, dataset, base), report_from(after, dataset, small)};
  comparison.mean_absolute_difference = mean_of((s.sigmoid() - t.sigmoid()).abs());
  comparison.mean_kl = std::max(0.0, mean_of(divergence(s, t)));
  comparison.flipped = mean_of((s >= 0.0) != (t >= 0.0));
  return comparison;
}

double mean_kl(Model& before, Model& after, const Dataset& dataset, int64_t max_rows) {
  return std::max(0.0,
                  mean_of(divergence(all_logits(before, dataset, max_rows), all_logits(after, dataset, max_rows))));
}

std::string comparison_to_json(const Comparison& comparison) {
  return nlohmann::ordered_json{{"before", report_json(comparison.before)},
                                {"after", report_json(comparison.after)},
                                {"ratio", ratio_of(comparison)},
                                {"mean_absolute_difference", comparison.mean_absolute_difference},
                                {"mean_kl", comparison.mean_kl},
                                {"flipped", comparison.flipped}}
      .dump(2);
}

std::string comparison_to_markdown(const Comparison& comparison) {
  const ModelReport &before = comparison.before, &after = comparison.after;
  std::string text = "| | before | after | change |\n|---|--:|--:|--:|\n";
  const auto add = [&text](std::string_view name, const std::string& was, const std::string& is,
                           const std::string& change) {
    text += fmt::format("| {} | {} | {} | {} |\n", name, was, is, change);
  };
  const auto add_metric = [&](std::string_view name, double was, double is) {
    add(name, fmt::format("{:.5f}", was), fmt::format("{:.5f}", is), fmt::format("{:+.5f}", is - was));
  };
  const auto add_size = [&](std::string_view name, int64_t was, int64_t is) {
    add(name, std::to_string(was), std::to_string(is),
        fmt::format("{:.2f}x smaller", static_cast<double>(was) / static_cast<double>(is)));
  };
  add_metric("AUC", before.metrics.auc, after.metrics.auc);
  add_metric("logloss", before.metrics.logloss, after.metrics.logloss);
  add_size("parameters", before.parameters, after.parameters);
  add_size("bytes", before.bytes, after.bytes);
  add("microseconds per row", fmt::format("{:.3f}", before.microseconds_per_row),
      fmt::format("{:.3f}", after.microseconds_per_row),
      fmt::format("{:.2f}x faster", before.microseconds_per_row / after.microseconds_per_row));
  text += fmt::format(
      "\nOver {} rows the probabilities differ by {:.2e} on average, KL(before || after) is {:.2e} nats, and {:.3f} % "
      "of "
      "the rows are on the other side of 0.5.\n",
      before.metrics.rows, comparison.mean_absolute_difference, comparison.mean_kl, 100.0 * comparison.flipped);
  return text;
}

}  // namespace afm
