#include "libafm/nn/embedding.h"

#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/ranges.h>
#include <torch/types.h>

#include "libafm/core/fail.h"
#include "libafm/nn/embedding_integers.h"
#include "libafm/nn/embedding_layout.h"
#include "libafm/nn/embedding_lookup.h"
#include "libafm/nn/embedding_options.h"
#include "libafm/nn/embedding_rows.h"
#include "libafm/nn/integer_weight.h"

namespace afm::nn {
namespace {

// Orthonormal rows where there are at most D of them per block, as the compression gives them.
void fill_orthonormal(const EmbeddingLayout& layout, at::Tensor basis) {
  const auto fill = [&](int64_t first, int64_t count) {
    if (count == 0) return;
    const at::Tensor random = at::randn({layout.decoded, count}, at::kDouble);
    basis.narrow(0, first, count).copy_(std::get<0>(at::linalg_qr(random)).t());
  };
  if (layout.shared) return fill(0, layout.basis_rows);
  for (const FieldLayout& field : layout.fields) fill(field.basis_row, field.width);
}

std::vector<std::size_t> tier_counts(const EmbeddingLayout& layout) {
  std::vector<std::size_t> counts;
  for (const FieldLayout& field : layout.fields) counts.push_back(field.tiers.size());
  return counts;
}

}  // namespace

EmbeddingImpl::EmbeddingImpl(EmbeddingOptions chosen) : options(checked_options(std::move(chosen))) { reset(); }

void EmbeddingImpl::reset() {
  allocate(BlankScope::options());
  reset_parameters();
}

void EmbeddingImpl::reset_parameters() {
  if (BlankScope::active()) return;
  const torch::NoGradGuard no_grad;
  (is_dense() ? weight : latent).normal_(0, options.init_std);
  if (!layout_->expands) return;
  fill_orthonormal(*layout_, basis);
  offset.zero_();
}

void EmbeddingImpl::pretty_print(std::ostream& stream) const {
  stream << fmt::format("afm::nn::Embedding(fields={}, rows={}, embedding_dim={}, wide={}", field_count(), row_count(),
                        options.embedding_dim, options.wide);
  if (!is_dense()) {
    stream << ", ranks=[" << fmt::format("{}", fmt::join(options.ranks, ", ")) << "], basis=" << name_of(options.basis);
  }
  if (options.joint) stream << ", joint=true";
  if (!options.tiers.empty()) stream << ", tiers=[" << fmt::format("{}", fmt::join(tier_counts(*layout_), ", ")) << "]";
  if (options.bits != Bits::kFloat) {
    stream << ", bits=" << name_of(options.bits) << ", scale=" << name_of(options.scale);
  }
  stream << ")";
}

EmbeddingOutput EmbeddingImpl::lookup(const at::Tensor& ids) {
  TORCH_CHECK(ids.dim() == 2 && ids.size(1) == slot_count(), "Embedding: expected ids [B, ", slot_count(), "], got ",
              ids.sizes());
  TORCH_CHECK(ids.scalar_type() == at::kInt || ids.scalar_type() == at::kLong,
              "Embedding: expected ids of type int32 or int64, got ", ids.scalar_type());
  const EmbeddingTables tables{table_values(), basis, offset};
  const EmbeddingLayout& layout = layout_on(ids.device());
  EmbeddingOutput output = kernels_serve(tables, ids)
                               ? lookup_with_kernels(layout_, tables, ids, row_updates_.pointer)
                               : lookup_with_aten(layout, tables, ids, check_ids || ids.is_cpu());
  if (lookup_hook_) lookup_hook_(ids, output);
  call_hook(ids, output.values.defined() ? output.values : output.latents);
  return output;
}

LayerPlan EmbeddingImpl::plan() const {
  return {.ranks = options.ranks,
          .basis = options.basis,
          .joint = options.joint,
          .tiers = options.tiers,
          .bits = options.bits,
          .scale = options.scale};
}

EmbeddingOptions EmbeddingImpl::reshaped(const LayerPlan& plan) const {
  if (plan.activation != FactorActivation::kNone) {
    fail<std::invalid_argument>("an embedding must have the activation none, got {}", name_of(plan.activation));
  }
  check_no_units(plan);
  EmbeddingOptions chosen = options;
  chosen.ranks = plan.ranks;
  chosen.basis = plan.basis;
  chosen.joint = plan.joint;
  chosen.tiers = plan.tiers;
  chosen.bits = plan.bits;
  chosen.scale = plan.scale;
  return checked_form(std::move(chosen));
}

void EmbeddingImpl::reshape(const LayerPlan& plan) {
  EmbeddingOptions chosen = reshaped(plan);
  const at::TensorOptions kept = (is_dense() ? weight : latent).options();
  options = std::move(chosen);
  allocate(kept);
}

at::Tensor EmbeddingImpl::forward(const at::Tensor& ids) {
  const EmbeddingOutput output = lookup(ids);
  return output.values.defined() ? output.values : output.latents;
}

int64_t EmbeddingImpl::wide_parameters() const { return options.wide && !options.joint ? layout_->stored_rows : 0; }

int64_t EmbeddingImpl::slot_count() const { return layout_->slots; }

int64_t EmbeddingImpl::row_count() const { return layout_->rows; }

at::Tensor EmbeddingImpl::table(int64_t number) const {
  TORCH_CHECK(number >= 0 && number < field_count(), "Embedding: field must be in [0, ", field_count(), "), got ",
              number);
  const torch::NoGradGuard no_grad;
  const FieldLayout& field = layout_->fields[static_cast<std::size_t>(number)];
  const at::Tensor values = rows_of(*layout_, table_values(), field).narrow(1, 0, field.width);
  if (!layout_->expands) return values.clone(at::MemoryFormat::Contiguous);
  const at::Tensor rows = basis.narrow(0, field.basis_row, field.width);
  return at::addmm(offset[number].narrow(0, 0, layout_->dim), values, rows.narrow(1, 0, layout_->dim));
}

at::Tensor EmbeddingImpl::wide_weights() const {
  if (!options.wide || (options.joint && !layout_->expands)) return {};
  const torch::NoGradGuard no_grad;
  std::vector<at::Tensor> parts;
  for (std::size_t j = 0; j < layout_->fields.size(); ++j) {
    const FieldLayout& field = layout_->fields[j];
    const at::Tensor rows = rows_of(*layout_, table_values(), field);
    if (layout_->wide) {
      parts.push_back(rows.select(1, field.width));
    } else {
      const at::Tensor column = basis.narrow(0, field.basis_row, field.width).select(1, layout_->dim);
      parts.push_back(at::mv(rows, column) + offset[static_cast<int64_t>(j)][layout_->dim]);
    }
  }
  return at::cat(parts);
}

void EmbeddingImpl::allocate(const at::TensorOptions& like) {
  for (const char* name : {"weight", "latent", "basis", "offset"}) {
    if (parameters_.contains(name)) parameters_.erase(name);
  }
  weight = latent = basis = offset = at::Tensor();
  layout_ = std::make_shared<EmbeddingLayout>(options);
  integers_ = options.bits == Bits::kFloat
                  ? nullptr
                  : std::make_shared<IntegerWeight>(options.bits, scale_groups_of(*layout_, options.scale));
  if (is_dense()) {
    weight = register_parameter("weight", torch::empty({layout_->rows, layout_->dim + layout_->wide}, like));
    return;
  }
  latent = register_parameter("latent", torch::empty({layout_->elements}, like));
  if (!layout_->expands) return;
  basis = register_parameter("basis", torch::empty({layout_->basis_rows, layout_->decoded}, like));
  offset = register_parameter("offset", torch::empty({field_count(), layout_->decoded}, like));
}

const EmbeddingLayout& EmbeddingImpl::layout_on(at::Device device) {
  if (layout_->device != device) {
    // A graph that still waits for its backward pass keeps the old one.
    layout_ = std::make_shared<EmbeddingLayout>(options);
    layout_->move_to(device);
  }
  return *layout_;
}

}  // namespace afm::nn
