#include "models/deepfm.h"

#include <utility>

#include <ATen/ATen.h>

#include "libafm/core/options_json.h"
#include "libafm/nn/interaction.h"
#include "models/features.h"

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
  mlp = register_module("mlp", nn::Mlp(mlp_options(schema(), options, /*out_features=*/1)));
  bias = register_parameter("bias", at::zeros({1}));
  apply_fresh_plan(*this, plan);
}

at::Tensor DeepFMImpl::forward(const Batch& batch) {
  const auto [values, wide, latents] = embedding->lookup(batch.ids);
  const at::Tensor dense = dense_features(batch, schema().dense_count(), values);
  const at::Tensor deep = mlp->forward(concatenate(values, dense)).squeeze(1);
  return first_order(wide, wide_dense, dense, bias) + nn::factorization_machine(values) + deep;
}

std::string DeepFMImpl::options_json() const { return to_json(options).dump(); }

std::shared_ptr<Model> DeepFMImpl::rebuild(std::string_view options_json, const RankPlan& plan) const {
  return std::make_shared<DeepFMImpl>(options_from<DeepFMOptions>(options_json, "DeepFMOptions"), schema(), plan);
}

}  // namespace afm::models
