#include "libafm/compress/fold.h"

#include <map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "libafm/nn/fold_layers.h"
#include "libafm/nn/layer.h"
#include "libafm/nn/matching_state.h"
#include "libafm/nn/mlp.h"

namespace afm {
namespace {

constexpr const char* kBatchNorm = "batch_norm";

using Mlps = std::map<std::string, const nn::MlpImpl*>;  // by path

Mlps mlps_of(const Model& model) {
  Mlps mlps;
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    if (const auto* mlp = dynamic_cast<const nn::MlpImpl*>(item.value().get())) mlps[item.key()] = mlp;
  }
  return mlps;
}

nn::NormAffine affine_of(const torch::nn::BatchNorm1dImpl& norm) {
  return nn::norm_affine(norm.running_mean, norm.running_var, norm.options.eps(), norm.weight.detach(),
                         norm.bias.detach());
}

void fold_norms(const std::string& path, const nn::MlpImpl& from, const nn::MlpImpl& to, FoldResult& result) {
  for (std::size_t i = 0; i < from.norms.size(); ++i) {
    nn::append_affine(*from.layers[i], affine_of(*from.norms[i]), *to.layers[i].ptr());
    if (from.layers[i]->options.bits == Bits::kFloat) continue;
    result.requantized.push_back(fmt::format("{}.layers.{}", path, i));
  }
}

}  // namespace

FoldResult fold(const Model& model) { return model.folded(); }

FoldResult fold_batch_norm(const Model& model) {
  nlohmann::json options = nlohmann::json::parse(model.options_json());
  if (!options.contains(kBatchNorm)) {
    const std::string reason = fmt::format("a model of the kind '{}' has no option '{}'", model.kind(), kBatchNorm);
    return {.model = copy_of(model), .refused = {{.part = "model", .reason = reason}}};
  }
  options[kBatchNorm] = false;
  const nn::BlankScope blank(model.device(), model.dtype());
  FoldResult result{.model = model.rebuild(options.dump(), nn::rank_plan_of(model))};
  copy_matching(*result.model, model);
  const Mlps targets = mlps_of(*result.model);
  for (const auto& [path, mlp] : mlps_of(model)) fold_norms(path, *mlp, *targets.at(path), result);
  return result;
}

}  // namespace afm
