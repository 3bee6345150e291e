#include <stdexcept>
#include <string>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <nlohmann/json.hpp>

#include "libafm/compress/reduce_units.h"
#include "libafm/core/fail.h"
#include "libafm/nn/layer.h"
#include "libafm/nn/model_file.h"

namespace afm {
namespace {

constexpr std::string_view kHiddenLayers = "mlp.layers.";  // "mlp.layers.0" has the width options.hidden[0]

void replace(TensorMap& state, const std::string& name, at::Tensor value) {
  if (const auto found = state.find(name); found != state.end()) found->second = std::move(value);
}

void keep_entries(TensorMap& state, const std::string& path, const at::Tensor& index) {
  for (const char* name : {".weight", ".bias", ".running_mean", ".running_var"}) {
    const auto found = state.find(path + name);
    if (found != state.end()) found->second = found->second.index_select(0, index.to(found->second.device()));
  }
}

std::string options_with(const Model& model, const KeptUnits& kept) {
  auto options = nlohmann::json::parse(model.options_json());
  for (const auto& [path, units] : kept) {
    if (!path.starts_with(kHiddenLayers) || !options.contains("hidden")) {
      fail<std::invalid_argument>("layer '{}' must be a hidden layer of the model's 'mlp' to keep fewer units", path);
    }
    options["hidden"].at(std::stoul(path.substr(kHiddenLayers.size()))) = units.size();
  }
  return options.dump();
}

}  // namespace

std::shared_ptr<Model> reduced_model(const Model& model, const Statistics& statistics, const KeptUnits& kept) {
  const at::NoGradGuard no_grad;
  auto& original = const_cast<Model&>(model);  // only read
  TensorMap state = state_of(original);
  // Forward: a layer gets its new columns before its own units are chosen.
  for (const HiddenLayer& layer : hidden_layers(original)) {
    const auto found = kept.find(layer.path);
    if (found == kept.end()) continue;
    const NextLayer next = layer_behind(original, statistics, layer, found->second);
    replace(state, layer.next + ".weight", next.weight);
    replace(state, layer.next + ".bias", next.bias);
    const at::Tensor index = at::tensor(found->second, at::kLong);
    keep_entries(state, layer.path, index);
    if (!layer.norm.empty()) keep_entries(state, layer.norm, index);
  }
  const nn::BlankScope blank(model.device(), model.dtype());
  const std::shared_ptr<Model> reduced = model.rebuild(options_with(model, kept), {});
  reduced->to(model.device(), model.dtype());
  load_state(*reduced, state, "a model with fewer units");
  reduced->notes = model.notes;
  reduced->train(model.is_training());
  return reduced;
}

}  // namespace afm
