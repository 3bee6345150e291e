#pragma once

// What a rewritten layer loses: the mean squared distance of its outputs, given the inputs it had before.

#include <algorithm>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include <torch/torch.h>

#include "libafm/compress/plan.h"
#include "tests/compress/ranker.h"

namespace afm::testing {

using Rewrite = std::function<void(Ranker)>;

inline nn::Linear linear_named(const Ranker& ranker, const std::string& path) {
  if (path == "tower.mix") return ranker->tower->mix;
  return path == "head" ? ranker->head : ranker->tower->narrow;
}

inline double linear_error(const std::string& path, const at::Tensor& ids, const Rewrite& rewrite) {
  const torch::NoGradGuard no_grad;
  auto ranker = make_ranker();
  auto layer = linear_named(ranker, path);
  std::vector<at::Tensor> inputs, outputs;
  layer->set_output_hook([&](const at::Tensor& input, const at::Tensor& output) {
    inputs.push_back(input.clone());
    outputs.push_back(output.clone());
  });
  ranker(ids);
  layer->set_output_hook({});
  rewrite(ranker);
  return (layer(torch::cat(inputs)) - torch::cat(outputs)).square().sum(1).mean().item<double>();
}

// Per field, over the rows that have a value in it.
inline std::vector<double> field_errors(const at::Tensor& ids, const Rewrite& rewrite) {
  const torch::NoGradGuard no_grad;
  auto ranker = make_ranker();
  const auto before = ranker->embedding(ids);
  rewrite(ranker);
  const auto squared = (ranker->embedding(ids) - before).square().sum(2);
  std::vector<double> errors;
  int64_t slot = 0;
  for (std::size_t j = 0; j < kSlots.size(); ++j) {
    const auto filled = ids.narrow(1, slot, kSlots[j]).ne(kEmptySlot).any(1);
    errors.push_back(squared.select(1, static_cast<int64_t>(j)).index({filled}).mean().item<double>());
    slot += kSlots[j];
  }
  return errors;
}

inline LayerSummary line_of(const std::vector<LayerSummary>& lines, const std::string& layer, int64_t field = -1) {
  const auto found =
      std::ranges::find_if(lines, [&](const LayerSummary& line) { return line.layer == layer && line.field == field; });
  if (found == lines.end()) throw std::out_of_range(layer);
  return *found;
}

}  // namespace afm::testing
