#include "models/folding.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <torch/types.h>

#include "libafm/nn/layer.h"

namespace afm::models {
namespace {

int64_t folded_width(const Model& model, const nn::EmbeddingImpl& embedding) {
  return nn::latent_width(nn::decoder_of(embedding)) + model.schema().dense_count();
}

at::Tensor longest_basis(const nn::Decoder& decoder) {
  return *std::ranges::max_element(decoder.basis, {}, [](const at::Tensor& basis) { return basis.size(0); });
}

}  // namespace

std::optional<Refusal> fold_refusal(const Model& model, const nn::EmbeddingImpl& embedding,
                                    const nn::FirstLayer* first) {
  if (auto refused = nn::refusal_of(embedding)) return refused;
  const int64_t width = folded_width(model, embedding);
  if (width == 0) return Refusal{"embedding", "all its ranks are 0 and there are no dense features: nothing to read"};
  return first == nullptr ? std::nullopt : nn::refusal_of(*first, width);
}

RankPlan folded_plan(const Model& model, const nn::EmbeddingImpl& embedding, const nn::FirstLayer* first) {
  RankPlan plan = nn::rank_plan_of(model);
  plan.at("embedding").basis = Basis::kNone;
  if (first != nullptr) plan[first->path] = nn::plan_on_latents(*first->layer, folded_width(model, embedding));
  return plan;
}

std::vector<std::string> requantized_layers(const nn::FirstLayer* first) {
  if (first == nullptr || first->layer->options.bits == Bits::kFloat) return {};
  return {first->path};
}

FoldResult kept_as_it_is(const Model& model, const Refusal& refusal) {
  return {.model = copy_of(model), .refused = {refusal}};
}

at::Tensor take_shared_space(nn::Decoder& decoder, const nn::EmbeddingImpl& embedding) {
  const auto& multi = embedding.options.multi_valued;
  // The offset of a multi-valued field is a row of its own basis.
  if (embedding.options.basis != Basis::kShared || std::ranges::find(multi, true) != multi.end()) return {};
  if (embedding.options.bits == Bits::kFloat) return nn::take_gauge(decoder);
  const at::Tensor basis = longest_basis(decoder);
  if (!nn::has_orthonormal_rows(basis, embedding.basis.scalar_type())) return {};
  return at::eye(basis.size(0), basis.options());
}

void set_values(const at::Tensor& parameter, const at::Tensor& values) {
  const torch::NoGradGuard no_grad;
  parameter.copy_(values);
}

}  // namespace afm::models
