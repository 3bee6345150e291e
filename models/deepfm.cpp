#include "models/deepfm.h"

#include <utility>

#include <ATen/ATen.h>

#include "libafm/core/options_json.h"
#include "libafm/nn/interaction.h"
#include "models/features.h"
#include "models/folding.h"

namespace afm::models {

DeepFMImpl::DeepFMImpl(DeepFMOptions chosen, Schema counted, const RankPlan& plan)
    : Model(std::move(counted)), options(std::move(chosen)) {
  check_options(options, "DeepFMOptions");
  check_schema(schema(), "DeepFM");
  embedding = register_module("embedding", nn::Embedding(embedding_options(schema(), options.embedding_dim,
                                                                           options.init_std, /*wide=*/true, plan)));
  if (const int64_t count = schema().dense_count(); count > 0) {
    wide_dense = register_module("wide_dense",
                                 nn::Linear(nn::LinearOptions{.in_features = count, .out_features = 1, .bias = false}));
  }
  const int64_t width = feature_width(schema(), *embedding);
  mlp = register_module("mlp", nn::Mlp(mlp_options(width, options, /*out_features=*/1)));
  if (is_folded(*embedding)) {
    const bool decodes = options.interaction == InteractionSpace::kDecoded;
    interaction = register_module(
        "interaction", nn::LatentMachine(nn::LatentMachineOptions{
                           .ranks = latent_ranks(*embedding), .embedding_dim = decodes ? options.embedding_dim : 0}));
    wide_latent = register_parameter("wide_latent", at::zeros({width - schema().dense_count()}));
  }
  bias = register_parameter("bias", at::zeros({1}));
  apply_fresh_plan(*this, plan);
}

at::Tensor DeepFMImpl::forward(const Batch& batch) {
  if (const auto fused = fused_features(*embedding, batch, schema().dense_count(), /*interaction=*/true)) {
    return fused_logit(*fused, wide_dense, batch, bias, *mlp);
  }
  const nn::EmbeddingOutput output = embedding->lookup(batch.ids);
  const at::Tensor read = read_of(*embedding, output, batch.ids);
  const at::Tensor dense = dense_features(batch, schema().dense_count(), read);
  const at::Tensor deep = mlp->forward(concatenate(read, dense)).squeeze(1);
  const at::Tensor logit = first_order(output.wide, wide_dense, dense, bias) + deep;
  if (!interaction) return logit + nn::factorization_machine(read);
  return logit + interaction->forward(read) + at::mv(read, wide_latent);
}

std::string DeepFMImpl::options_json() const { return to_json(options).dump(); }

std::shared_ptr<Model> DeepFMImpl::rebuild(std::string_view options_json, const RankPlan& plan) const {
  return std::make_shared<DeepFMImpl>(options_from<DeepFMOptions>(options_json, "DeepFMOptions"), schema(), plan);
}

FoldResult DeepFMImpl::folded() const {
  if (is_folded(*embedding)) return {.model = copy_of(*this)};
  const nn::FirstLayer first = nn::first_layer_of(*mlp, "mlp");
  if (auto refused = fold_refusal(*this, *embedding, &first)) return kept_as_it_is(*this, *refused);
  DeepFMOptions chosen = options;
  nn::Decoder decoder = nn::decoder_of(*embedding);
  const at::Tensor rotation = take_shared_space(decoder, *embedding);
  chosen.interaction = rotation.defined() ? InteractionSpace::kLatent : InteractionSpace::kDecoded;
  const nn::BlankScope blank(device(), dtype());
  const auto folded = std::make_shared<DeepFMImpl>(chosen, schema(), folded_plan(*this, *embedding, &first));
  copy_matching(*folded, *this);
  if (rotation.defined()) {
    nn::turn_latents(*folded->embedding, rotation);
  } else {
    set_values(folded->interaction->basis, at::cat(decoder.basis));
  }
  nn::read_latents(*first.layer, decoder, *nn::first_layer_of(*folded->mlp, "mlp").layer);
  const nn::InteractionRest rest = nn::interaction_rest(decoder);
  const bool joint = decoder.wide.defined();
  set_values(folded->wide_latent, joint ? rest.linear + decoder.wide : rest.linear);
  set_values(folded->bias, bias.detach() + (joint ? rest.constant + decoder.wide_offset : rest.constant));
  return {.model = folded, .requantized = requantized_layers(&first)};
}

}  // namespace afm::models
