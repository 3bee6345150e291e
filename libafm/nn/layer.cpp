#include "libafm/nn/layer.h"

#include <stdexcept>
#include <unordered_set>
#include <utility>

#include <fmt/ranges.h>

#include "libafm/core/fail.h"

namespace afm::nn {
namespace {

Layer& layer_named(const std::vector<std::pair<std::string, Layer*>>& layers, const std::string& path) {
  std::vector<std::string_view> known;
  for (const auto& [name, layer] : layers) {
    if (name == path) return *layer;
    known.push_back(name);
  }
  fail<std::invalid_argument>("the rank plan names '{}', which is no layer of the model; its layers are: {}", path,
                              fmt::join(known, ", "));
}

thread_local std::optional<at::TensorOptions> blank_options;

}  // namespace

BlankScope::BlankScope(at::Device device, at::ScalarType type)
    : outer_(std::exchange(blank_options, at::TensorOptions(device).dtype(type))) {}

BlankScope::~BlankScope() { blank_options = outer_; }

bool BlankScope::active() { return blank_options.has_value(); }

at::TensorOptions BlankScope::options() { return blank_options.value_or(at::TensorOptions().dtype(at::kFloat)); }

void check_no_units(const LayerPlan& plan) {
  if (plan.units == 0) return;
  fail<std::invalid_argument>("units must be 0 in the plan of a layer, only factorize() removes units; got {}",
                              plan.units);
}

std::vector<std::pair<std::string, Layer*>> layers_of(torch::nn::Module& root) {
  std::vector<std::pair<std::string, Layer*>> layers;
  std::unordered_set<const Layer*> seen;
  const auto offer = [&](const std::string& path, torch::nn::Module* module) {
    auto* layer = dynamic_cast<Layer*>(module);
    if (layer != nullptr && seen.insert(layer).second) layers.emplace_back(path, layer);
  };
  // The root apart: named_modules() would ask it for a shared pointer, which a root on the stack does not have.
  offer("", &root);
  for (const auto& item : root.named_modules("", /*include_self=*/false)) offer(item.key(), item.value().get());
  return layers;
}

RankPlan rank_plan_of(const torch::nn::Module& root) {
  RankPlan plan;
  // Only read: layers_of() takes a module that may change because its callers change it.
  for (const auto& [path, layer] : layers_of(const_cast<torch::nn::Module&>(root))) {
    LayerPlan own = layer->plan();
    if (own != LayerPlan{}) plan[path] = std::move(own);
  }
  return plan;
}

void apply_plan(torch::nn::Module& root, const RankPlan& plan) {
  const auto layers = layers_of(root);
  for (const auto& [path, layer_plan] : plan) layer_named(layers, path);
  for (const auto& [path, layer_plan] : plan) {
    Layer& layer = layer_named(layers, path);
    if (layer.plan() == layer_plan) continue;
    try {
      layer.reshape(layer_plan);
    } catch (const std::invalid_argument& error) {
      fail<std::invalid_argument>("the rank plan does not fit layer '{}': {}", path, error.what());
    }
  }
}

}  // namespace afm::nn
