#include "models/wide_deep.h"

#include <utility>

#include <ATen/ATen.h>

#include "libafm/core/options_json.h"
#include "models/features.h"
#include "models/folding.h"

namespace afm::models {

WideDeepImpl::WideDeepImpl(WideDeepOptions chosen, Schema counted, const RankPlan& plan)
    : Model(std::move(counted)), options(std::move(chosen)) {
  check_options(options, "WideDeepOptions");
  check_schema(schema(), "WideDeep");
  embedding = register_module("embedding", nn::Embedding(embedding_options(schema(), options.embedding_dim,
                                                                           options.init_std, /*wide=*/true, plan)));
  if (const int64_t count = schema().dense_count(); count > 0) {
    wide_dense = register_module("wide_dense",
                                 nn::Linear(nn::LinearOptions{.in_features = count, .out_features = 1, .bias = false}));
  }
  const int64_t width = feature_width(schema(), *embedding);
  mlp = register_module("mlp", nn::Mlp(mlp_options(width, options, /*out_features=*/1)));
  if (is_folded(*embedding) && embedding->options.joint) {
    wide_latent = register_parameter("wide_latent", at::zeros({width - schema().dense_count()}));
  }
  bias = register_parameter("bias", at::zeros({1}));
  apply_fresh_plan(*this, plan);
}

at::Tensor WideDeepImpl::forward(const Batch& batch) {
  if (const auto fused = fused_features(*embedding, batch, schema().dense_count(), /*interaction=*/false)) {
    return fused_logit(*fused, wide_dense, batch, bias, *mlp);
  }
  const nn::EmbeddingOutput output = embedding->lookup(batch.ids);
  const at::Tensor read = read_of(*embedding, output, batch.ids);
  const at::Tensor dense = dense_features(batch, schema().dense_count(), read);
  const at::Tensor deep = mlp->forward(concatenate(read, dense)).squeeze(1);
  const at::Tensor logit = first_order(output.wide, wide_dense, dense, bias) + deep;
  return wide_latent.defined() ? logit + at::mv(read, wide_latent) : logit;
}

std::string WideDeepImpl::options_json() const { return to_json(options).dump(); }

std::shared_ptr<Model> WideDeepImpl::rebuild(std::string_view options_json, const RankPlan& plan) const {
  return std::make_shared<WideDeepImpl>(options_from<WideDeepOptions>(options_json, "WideDeepOptions"), schema(), plan);
}

FoldResult WideDeepImpl::folded() const {
  if (is_folded(*embedding)) return {.model = copy_of(*this)};
  const nn::FirstLayer first = nn::first_layer_of(*mlp, "mlp");
  if (auto refused = fold_refusal(*this, *embedding, &first)) return kept_as_it_is(*this, *refused);
  const nn::Decoder decoder = nn::decoder_of(*embedding);
  const nn::BlankScope blank(device(), dtype());
  const auto folded = std::make_shared<WideDeepImpl>(options, schema(), folded_plan(*this, *embedding, &first));
  copy_matching(*folded, *this);
  nn::read_latents(*first.layer, decoder, *nn::first_layer_of(*folded->mlp, "mlp").layer);
  if (decoder.wide.defined()) {
    set_values(folded->wide_latent, decoder.wide);
    set_values(folded->bias, bias.detach() + decoder.wide_offset);
  }
  return {.model = folded, .requantized = requantized_layers(&first)};
}

}  // namespace afm::models
