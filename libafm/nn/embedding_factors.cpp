#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <torch/types.h>

#include "libafm/core/fail.h"
#include "libafm/nn/embedding.h"
#include "libafm/nn/embedding_rows.h"

namespace afm::nn {
namespace {

bool has_shape(const at::Tensor& tensor, at::IntArrayRef shape) { return tensor.defined() && tensor.sizes() == shape; }

void check_factors(const TableFactors& factors, const FieldLayout& field, const LayerPlan& plan, int64_t dim,
                   const std::string& name) {
  const int64_t k = factors.latent.defined() && factors.latent.dim() == 2 ? factors.latent.size(1) : -1;
  const bool folded = plan.basis == Basis::kNone;
  if (k >= 0 && has_shape(factors.latent, {field.cardinality, k}) &&
      (folded || (has_shape(factors.basis, {k, dim}) && has_shape(factors.offset, {dim})))) {
    return;
  }
  if (folded) {
    fail<std::invalid_argument>("the factors of field '{}' must be latent [{}, k]", name, field.cardinality);
  }
  fail<std::invalid_argument>("the factors of field '{}' must be latent [{}, k], basis [k, {}] and offset [{}]", name,
                              field.cardinality, dim, dim);
}

// The ranks of the shapes, which the plan must agree with if it states some.
LayerPlan with_ranks(LayerPlan plan, const std::vector<TableFactors>& fields) {
  std::vector<int64_t> ranks;
  for (const TableFactors& field : fields) ranks.push_back(field.latent.size(1));
  if (!plan.ranks.empty() && plan.ranks != ranks) {
    fail<std::invalid_argument>("the ranks of a plan must be those of its factors");
  }
  plan.ranks = std::move(ranks);
  return plan;
}

void check_shared_rows(const at::Tensor& latent, const FieldLayout& field, const std::string& name) {
  for (const TierLayout& tier : field.tiers) {
    if (tier.stored == tier.end - tier.first) continue;
    const at::Tensor rows = latent.narrow(0, tier.first, tier.end - tier.first).narrow(1, 0, tier.rank);
    if (at::equal(rows, rows.narrow(0, 0, 1).expand_as(rows))) continue;
    fail<std::invalid_argument>("the latents of field '{}' must be equal for ids {} to {}, which share a row", name,
                                tier.first, tier.end - 1);
  }
}

// The basis of the plan's form. Shared: one basis of which each field uses the first rows.
at::Tensor basis_of(const std::vector<TableFactors>& fields, Basis form) {
  if (form == Basis::kField) {
    std::vector<at::Tensor> parts;
    for (const TableFactors& field : fields) parts.push_back(field.basis);
    return at::cat(parts);
  }
  at::Tensor longest = fields[0].basis;
  for (const TableFactors& field : fields) {
    if (field.basis.size(0) > longest.size(0)) longest = field.basis;
  }
  for (const TableFactors& field : fields) {
    if (at::equal(field.basis, longest.narrow(0, 0, field.basis.size(0)))) continue;
    fail<std::invalid_argument>("with a shared basis the basis of every field must be a prefix of the longest one");
  }
  return longest;
}

// The wide weights [N] that get a storage of their own, undefined when there are none.
at::Tensor wide_to_store(const EmbeddingImpl& embedding, const EmbeddingOptions& form, const at::Tensor& given) {
  const bool stores = form.wide && !form.joint;
  if (given.defined() && !stores) {
    fail<std::invalid_argument>("a plan without wide weights of their own must get none");
  }
  if (given.defined() && !has_shape(given, {embedding.row_count()})) {
    fail<std::invalid_argument>("the wide weights of a plan must have one entry per row");
  }
  if (!stores || given.defined()) return given;
  at::Tensor own = embedding.wide_weights();
  if (own.defined()) return own;
  fail<std::invalid_argument>("an embedding that is folded with joint wide weights must get wide weights");
}

void store_field(const EmbeddingLayout& layout, const at::Tensor& table, const FieldLayout& field,
                 const at::Tensor& latent, const at::Tensor& wide) {
  for (const TierLayout& tier : field.tiers) {
    const int64_t rows = tier.end - tier.first;
    const at::Tensor stored = stored_rows(layout, table, tier);
    stored.narrow(1, 0, tier.rank).copy_(latent.narrow(0, tier.first, tier.stored).narrow(1, 0, tier.rank));
    if (!layout.wide) continue;
    const at::Tensor own = wide.narrow(0, field.first_row + tier.first, rows);
    stored.select(1, tier.rank).copy_(tier.stored == rows ? own : own.mean().expand({1}));
  }
}

}  // namespace

void EmbeddingImpl::set_factors(const std::vector<TableFactors>& fields, const LayerPlan& chosen,
                                const at::Tensor& wide) {
  if (static_cast<int64_t>(fields.size()) != field_count()) {
    fail<std::invalid_argument>("an embedding of {} fields must get as many factors, got {}", field_count(),
                                fields.size());
  }
  const torch::NoGradGuard no_grad;
  const int64_t decoded = options.embedding_dim + chosen.joint;
  for (std::size_t j = 0; j < fields.size(); ++j) {
    check_factors(fields[j], layout_->fields[j], chosen, decoded, layout_->names[j]);
  }
  const LayerPlan plan = with_ranks(chosen, fields);
  const EmbeddingOptions form = reshaped(plan);
  const EmbeddingLayout new_layout(form);
  for (std::size_t j = 0; j < fields.size(); ++j) {
    check_shared_rows(fields[j].latent, new_layout.fields[j], layout_->names[j]);
  }
  const at::Tensor new_wide = wide_to_store(*this, form, wide);
  const at::Tensor new_basis = new_layout.expands ? basis_of(fields, form.basis) : at::Tensor();
  reshape(plan);
  for (std::size_t j = 0; j < fields.size(); ++j) {
    store_field(*layout_, latent, layout_->fields[j], fields[j].latent, new_wide);
    if (layout_->expands) offset[static_cast<int64_t>(j)].copy_(fields[j].offset);
  }
  if (layout_->expands) basis.copy_(new_basis);
}

}  // namespace afm::nn
