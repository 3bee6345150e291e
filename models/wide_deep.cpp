#include "models/wide_deep.h"

#include <utility>

#include <ATen/ATen.h>

#include "libafm/core/options_json.h"
#include "models/features.h"

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
  mlp = register_module("mlp", nn::Mlp(mlp_options(schema(), options, /*out_features=*/1)));
  bias = register_parameter("bias", at::zeros({1}));
  apply_fresh_plan(*this, plan);
}

at::Tensor WideDeepImpl::forward(const Batch& batch) {
  const auto [values, wide, latents] = embedding->lookup(batch.ids);
  const at::Tensor dense = dense_features(batch, schema().dense_count(), values);
  const at::Tensor deep = mlp->forward(concatenate(values, dense)).squeeze(1);
  return first_order(wide, wide_dense, dense, bias) + deep;
}

std::string WideDeepImpl::options_json() const { return to_json(options).dump(); }

std::shared_ptr<Model> WideDeepImpl::rebuild(std::string_view options_json, const RankPlan& plan) const {
  return std::make_shared<WideDeepImpl>(options_from<WideDeepOptions>(options_json, "WideDeepOptions"), schema(), plan);
}

}  // namespace afm::models
