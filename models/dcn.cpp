#include "models/dcn.h"

#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>

#include "libafm/core/options_json.h"
#include "models/features.h"

namespace afm::models {

DCNImpl::DCNImpl(DCNOptions chosen, Schema counted, const RankPlan& plan)
    : Model(std::move(counted)), options(std::move(chosen)) {
  check_options(options, "DCNOptions");
  if (options.cross_layers < 1) {
    fail<std::invalid_argument>("DCNOptions.cross_layers must be at least 1, got {}", options.cross_layers);
  }
  check_schema(schema(), "DCN");
  embedding = register_module("embedding", nn::Embedding(embedding_options(schema(), options.embedding_dim,
                                                                           options.init_std, /*wide=*/false, plan)));
  const int64_t width = feature_width(schema(), options.embedding_dim);
  cross = register_module("cross", nn::CrossNet(nn::CrossNetOptions{
                                       .in_features = width, .layers = options.cross_layers, .form = options.cross}));
  int64_t head_width = width;
  if (!options.hidden.empty()) {
    mlp = register_module("mlp", nn::Mlp(mlp_options(schema(), options, /*out_features=*/0)));
    head_width += mlp->output_width();
  }
  head = register_module("head", nn::Linear(head_width, 1));
  apply_fresh_plan(*this, plan);
}

at::Tensor DCNImpl::forward(const Batch& batch) {
  const at::Tensor values = embedding->forward(batch.ids);
  const at::Tensor x0 = concatenate(values, dense_features(batch, schema().dense_count(), values));
  const at::Tensor crossed = cross->forward(x0);
  const at::Tensor joined = mlp ? at::cat({crossed, mlp->forward(x0)}, 1) : crossed;
  return head->forward(joined).squeeze(1);
}

std::string DCNImpl::options_json() const { return to_json(options).dump(); }

std::shared_ptr<Model> DCNImpl::rebuild(std::string_view options_json, const RankPlan& plan) const {
  return std::make_shared<DCNImpl>(options_from<DCNOptions>(options_json, "DCNOptions"), schema(), plan);
}

}  // namespace afm::models
