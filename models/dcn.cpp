#include "models/dcn.h"

#include <optional>
#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>

#include "libafm/core/options_json.h"
#include "libafm/nn/linear_relu.h"
#include "models/features.h"
#include "models/folding.h"

namespace afm::models {
namespace {

std::optional<Refusal> cross_refusal(const DCNImpl& model) {
  if (model.options.cross == nn::CrossForm::kMatrix) {
    return Refusal{"cross", "a cross network of matrices multiplies the embeddings themselves, element by element"};
  }
  if (model.head->options.activation != FactorActivation::kNone) {
    return Refusal{"head", "its factors have a ReLU between them, so what it reads of the cross network is not linear"};
  }
  return std::nullopt;
}

// The head of a folded model is one row.
void set_head_plan(RankPlan& plan, const DCNImpl& model) {
  plan.erase("head");
  if (model.mlp) plan["head"] = {.bits = model.head->options.bits, .scale = model.head->options.scale};
}

// The head reads [cross, mlp]: its first part moves into the cross network.
void split_head(const DCNImpl& model, const nn::Decoder& decoder, DCNImpl& folded) {
  const nn::Affine head = nn::affine_of(*model.head);
  const int64_t crossed = model.cross->options.in_features;
  const at::Tensor row = head.weight[0];
  nn::CrossOnLatents cross =
      nn::collapse_cross(decoder, model.cross->weight.detach(), model.cross->bias.detach(), row.narrow(0, 0, crossed));
  if (folded.head) {
    set_values(folded.head->weight[0], row.narrow(0, crossed, row.size(0) - crossed));
    set_values(folded.head->bias, head.bias);
  } else {
    cross.shift[-1] += head.bias[0];
  }
  set_values(folded.latent_cross->weight, cross.weight);
  set_values(folded.latent_cross->bias, cross.bias);
  set_values(folded.latent_cross->shift, cross.shift);
}

}  // namespace

DCNImpl::DCNImpl(DCNOptions chosen, Schema counted, const RankPlan& plan)
    : Model(std::move(counted)), options(std::move(chosen)) {
  check_options(options, "DCNOptions");
  if (options.cross_layers < 1) {
    fail<std::invalid_argument>("DCNOptions.cross_layers must be at least 1, got {}", options.cross_layers);
  }
  check_schema(schema(), "DCN");
  embedding = register_module("embedding", nn::Embedding(embedding_options(schema(), options.embedding_dim,
                                                                           options.init_std, /*wide=*/false, plan)));
  const int64_t width = feature_width(schema(), *embedding);
  add_cross(width);
  if (!options.hidden.empty()) mlp = register_module("mlp", nn::Mlp(mlp_options(width, options, /*out_features=*/0)));
  const int64_t head_width = (cross ? width : 0) + (mlp ? mlp->output_width() : 0);
  if (head_width > 0) head = register_module("head", nn::Linear(head_width, 1));
  apply_fresh_plan(*this, plan);
}

void DCNImpl::add_cross(int64_t width) {
  if (!is_folded(*embedding)) {
    cross = register_module("cross", nn::CrossNet(nn::CrossNetOptions{
                                         .in_features = width, .layers = options.cross_layers, .form = options.cross}));
    return;
  }
  if (options.cross != nn::CrossForm::kVector) {
    fail<std::invalid_argument>("DCNOptions.cross must be vector for an embedding with the basis none, got {}",
                                name_of(options.cross));
  }
  latent_cross = register_module(
      "cross", nn::LatentCross(nn::LatentCrossOptions{.in_features = width, .layers = options.cross_layers}));
}

at::Tensor DCNImpl::features_of(const Batch& batch) {
  const int64_t dense = schema().dense_count();
  if (const auto fused = fused_features(*embedding, batch, dense, /*interaction=*/false)) {
    return fused->input;
  }
  const at::Tensor read = read_of(*embedding, embedding->lookup(batch.ids), batch.ids);
  return concatenate(read, dense_features(batch, dense, read));
}

at::Tensor DCNImpl::forward(const Batch& batch) {
  const at::Tensor x0 = features_of(batch);
  if (latent_cross) {
    const at::Tensor crossed = latent_cross->forward(x0);
    return mlp ? crossed + head->forward(mlp->forward(x0)).squeeze(1) : crossed;
  }
  return head->is_plain() ? logits_in_parts(x0) : head->forward(head_input(x0)).squeeze(1);
}

at::Tensor DCNImpl::head_input(const at::Tensor& x0) {
  const at::Tensor crossed = cross->forward(x0);
  return mlp ? at::cat({crossed, mlp->forward(x0)}, 1) : crossed;
}

at::Tensor DCNImpl::logits_in_parts(const at::Tensor& features) {
  const int64_t crossed = cross->options.in_features, deep = head->options.in_features - crossed;
  const auto [x0, score] = cross->project(features, head->weight.narrow(1, 0, crossed));
  if (!mlp) return score + head->bias;
  return score + nn::linear_row(mlp->forward(x0), head->weight.narrow(1, crossed, deep), head->bias);
}

std::string DCNImpl::options_json() const { return to_json(options).dump(); }

std::shared_ptr<Model> DCNImpl::rebuild(std::string_view options_json, const RankPlan& plan) const {
  return std::make_shared<DCNImpl>(options_from<DCNOptions>(options_json, "DCNOptions"), schema(), plan);
}

FoldResult DCNImpl::folded() const {
  if (is_folded(*embedding)) return {.model = copy_of(*this)};
  const auto first = mlp ? std::optional(nn::first_layer_of(*mlp, "mlp")) : std::nullopt;
  const nn::FirstLayer* reader = first ? &*first : nullptr;
  if (auto refused = cross_refusal(*this)) return kept_as_it_is(*this, *refused);
  if (auto refused = fold_refusal(*this, *embedding, reader)) return kept_as_it_is(*this, *refused);
  const nn::Decoder decoder = nn::decoder_of(*embedding);
  RankPlan plan = folded_plan(*this, *embedding, reader);
  set_head_plan(plan, *this);
  const nn::BlankScope blank(device(), dtype());
  const auto folded = std::make_shared<DCNImpl>(options, schema(), plan);
  copy_matching(*folded, *this);
  if (reader != nullptr) nn::read_latents(*reader->layer, decoder, *nn::first_layer_of(*folded->mlp, "mlp").layer);
  split_head(*this, decoder, *folded);
  FoldResult result{.model = folded, .requantized = requantized_layers(reader)};
  if (folded->head && head->options.bits != Bits::kFloat) result.requantized.emplace_back("head");
  return result;
}

}  // namespace afm::models
