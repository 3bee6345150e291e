#include "libafm/nn/embedding.h"

#include <cmath>
#include <stdexcept>
#include <string_view>

#include <ATen/ATen.h>
#include <fmt/ranges.h>
#include <torch/types.h>

#include "libafm/core/fail.h"
#include "libafm/nn/embedding_layout.h"
#include "libafm/nn/embedding_lookup.h"

namespace afm::nn {
namespace {

void check_each(std::string_view name, const std::vector<int64_t>& values, int64_t least) {
  for (const int64_t value : values) {
    if (value >= least) continue;
    fail<std::invalid_argument>("EmbeddingOptions.{} must each be at least {}, got {}", name, least, value);
  }
}

void check_length(std::string_view name, std::size_t length, std::size_t fields) {
  if (length == 0 || length == fields) return;
  fail<std::invalid_argument>("EmbeddingOptions.{} must be empty or have one entry per field ({}), got {}", name,
                              fields, length);
}

void check_ranks(const std::vector<int64_t>& ranks, const EmbeddingOptions& options) {
  check_length("ranks", ranks.size(), options.cardinalities.size());
  for (const int64_t rank : ranks) {
    if (rank >= 0 && rank <= options.embedding_dim) continue;
    fail<std::invalid_argument>("EmbeddingOptions.ranks must each be in [0, {}], got {}", options.embedding_dim, rank);
  }
}

void check_tiers(const EmbeddingOptions& options) {
  if (options.tiers.empty()) return;
  if (options.ranks.empty()) fail<std::invalid_argument>("EmbeddingOptions.tiers must be empty without ranks");
  check_length("tiers", options.tiers.size(), options.cardinalities.size());
  for (std::size_t j = 0; j < options.tiers.size(); ++j) {
    if (options.tiers[j].empty()) continue;
    int64_t rows = 0, rank = options.ranks[j];
    if (options.tiers[j][0].rank != rank) {
      fail<std::invalid_argument>("EmbeddingOptions.tiers must start with the rank of their field ({}), got {}", rank,
                                  options.tiers[j][0].rank);
    }
    for (const Tier& tier : options.tiers[j]) {
      if (tier.rows < 1) {
        fail<std::invalid_argument>("EmbeddingOptions.tiers must each have at least 1 row, got {}", tier.rows);
      }
      if (tier.rank < 0 || tier.rank > rank) {
        fail<std::invalid_argument>("EmbeddingOptions.tiers must have ranks that do not grow, got {} after {}",
                                    tier.rank, rank);
      }
      rank = tier.rank;
      rows += tier.rows;
    }
    if (rows != options.cardinalities[j]) {
      fail<std::invalid_argument>("EmbeddingOptions.tiers must cover all {} ids of their field, got {} rows",
                                  options.cardinalities[j], rows);
    }
  }
}

// What a plan may change.
EmbeddingOptions checked_form(EmbeddingOptions options) {
  check_ranks(options.ranks, options);
  check_tiers(options);
  if (options.ranks.empty()) options.basis = Basis::kField;
  if (options.bits == Bits::kFloat) options.scale = ScaleBy::kRow;
  if (!options.joint) return options;
  if (!options.wide) fail<std::invalid_argument>("EmbeddingOptions.joint must be false without wide weights");
  if (options.ranks.empty()) fail<std::invalid_argument>("EmbeddingOptions.joint must be false without ranks");
  if (options.basis == Basis::kShared) {
    fail<std::invalid_argument>("EmbeddingOptions.joint must be false with a shared basis");
  }
  return options;
}

void check_multi_valued(const EmbeddingOptions& options) {
  check_length("multi_valued", options.multi_valued.size(), options.cardinalities.size());
  for (std::size_t j = 0; j < options.multi_valued.size() && !options.slots.empty(); ++j) {
    if (options.multi_valued[j] || options.slots[j] == 1) continue;
    fail<std::invalid_argument>("EmbeddingOptions.multi_valued must be true for a field of {} slots, got false",
                                options.slots[j]);
  }
}

EmbeddingOptions checked(EmbeddingOptions options) {
  if (options.cardinalities.empty()) {
    fail<std::invalid_argument>("EmbeddingOptions.cardinalities must name at least one field, got none");
  }
  check_each("cardinalities", options.cardinalities, 1);
  if (options.embedding_dim < 1) {
    fail<std::invalid_argument>("EmbeddingOptions.embedding_dim must be at least 1, got {}", options.embedding_dim);
  }
  check_length("slots", options.slots.size(), options.cardinalities.size());
  check_each("slots", options.slots, 1);
  check_length("names", options.names.size(), options.cardinalities.size());
  if (!(options.init_std >= 0) || !std::isfinite(options.init_std)) {
    fail<std::invalid_argument>("EmbeddingOptions.init_std must be finite and at least 0, got {}", options.init_std);
  }
  check_multi_valued(options);
  return checked_form(std::move(options));
}

// Orthonormal rows where there are at most D of them per block, as the compression gives them.
void fill_orthonormal(const EmbeddingLayout& layout, at::Tensor basis) {
  const auto fill = [&](int64_t first, int64_t count) {
    if (count == 0) return;
    const at::Tensor random = at::randn({layout.dim, count}, at::kDouble);
    basis.narrow(0, first, count).copy_(std::get<0>(at::linalg_qr(random)).t());
  };
  if (layout.shared) return fill(0, layout.basis_rows);
  for (const FieldLayout& field : layout.fields) fill(field.basis_row, field.width);
}

void check_factors(const TableFactors& factors, const FieldLayout& field, int64_t dim, const std::string& name) {
  const bool fits = factors.latent.dim() == 2 && factors.latent.size(0) == field.cardinality &&
                    factors.basis.dim() == 2 && factors.basis.size(0) == factors.latent.size(1) &&
                    factors.basis.size(1) == dim && factors.offset.dim() == 1 && factors.offset.size(0) == dim;
  if (fits) return;
  fail<std::invalid_argument>("the factors of field '{}' must be latent [{}, k], basis [k, {}] and offset [{}]", name,
                              field.cardinality, dim, dim);
}

// One basis of which each field uses the first rows.
at::Tensor shared_basis(const std::vector<TableFactors>& fields) {
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

at::Tensor joined_basis(const std::vector<TableFactors>& fields) {
  std::vector<at::Tensor> parts;
  for (const TableFactors& field : fields) parts.push_back(field.basis);
  return at::cat(parts);
}

// The rows of a field as a view [N_j, stride_j] of the flat table.
at::Tensor rows_of(const at::Tensor& table, const FieldLayout& field) {
  return table.detach()
      .view({-1})
      .narrow(0, field.start, field.cardinality * field.stride)
      .view({field.cardinality, field.stride});
}

}  // namespace

EmbeddingImpl::EmbeddingImpl(EmbeddingOptions chosen) : options(checked(std::move(chosen))) { reset(); }

void EmbeddingImpl::reset() {
  allocate(at::TensorOptions().dtype(at::kFloat));
  reset_parameters();
}

void EmbeddingImpl::reset_parameters() {
  const torch::NoGradGuard no_grad;
  (is_dense() ? weight : latent).normal_(0, options.init_std);
  if (is_dense()) return;
  fill_orthonormal(*layout_, basis);
  offset.zero_();
}

void EmbeddingImpl::pretty_print(std::ostream& stream) const {
  stream << std::boolalpha << "afm::nn::Embedding(fields=" << field_count() << ", rows=" << row_count()
         << ", embedding_dim=" << options.embedding_dim << ", wide=" << options.wide;
  if (!is_dense()) {
    stream << ", ranks=[" << fmt::format("{}", fmt::join(options.ranks, ", ")) << "], basis=" << name_of(options.basis);
  }
  stream << ")";
}

EmbeddingOutput EmbeddingImpl::lookup(const at::Tensor& ids) {
  TORCH_CHECK(ids.dim() == 2 && ids.size(1) == slot_count(), "Embedding: expected ids [B, ", slot_count(), "], got ",
              ids.sizes());
  TORCH_CHECK(ids.scalar_type() == at::kInt || ids.scalar_type() == at::kLong,
              "Embedding: expected ids of type int32 or int64, got ", ids.scalar_type());
  const EmbeddingTables tables{is_dense() ? weight : latent, basis, offset};
  const EmbeddingLayout& layout = layout_on(ids.device());
  EmbeddingOutput output = kernels_serve(tables, ids)
                               ? lookup_with_kernels(layout_, tables, ids)
                               : lookup_with_aten(layout, tables, ids, check_ids || ids.is_cpu());
  if (lookup_hook_) lookup_hook_(ids, output);
  call_hook(ids, output.values);
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

void EmbeddingImpl::set_factors(const std::vector<TableFactors>& fields, const LayerPlan& chosen,
                                const at::Tensor& own_wide) {
  if (static_cast<int64_t>(fields.size()) != field_count()) {
    fail<std::invalid_argument>("an embedding of {} fields must get as many factors, got {}", field_count(),
                                fields.size());
  }
  LayerPlan plan = chosen;
  plan.ranks.clear();
  for (std::size_t j = 0; j < fields.size(); ++j) {
    check_factors(fields[j], layout_->fields[j], options.embedding_dim, layout_->names[j]);
    plan.ranks.push_back(fields[j].basis.size(0));
  }
  const torch::NoGradGuard no_grad;
  const at::Tensor new_basis = plan.basis == Basis::kShared ? shared_basis(fields) : joined_basis(fields);
  const at::Tensor wide = own_wide.defined() ? own_wide : wide_weights();
  reshape(plan);
  basis.copy_(new_basis);
  for (std::size_t j = 0; j < fields.size(); ++j) {
    const FieldLayout& field = layout_->fields[j];
    const at::Tensor rows = rows_of(latent, field);
    rows.narrow(1, 0, field.width).copy_(fields[j].latent);
    if (options.wide) rows.select(1, field.width).copy_(wide.narrow(0, field.first_row, field.cardinality));
    offset[static_cast<int64_t>(j)].copy_(fields[j].offset);
  }
}

at::Tensor EmbeddingImpl::forward(const at::Tensor& ids) {
  const EmbeddingOutput output = lookup(ids);
  return output.values.defined() ? output.values : output.latents;
}

int64_t EmbeddingImpl::wide_parameters() const { return options.wide && !options.joint ? row_count() : 0; }

int64_t EmbeddingImpl::slot_count() const { return layout_->slots; }

int64_t EmbeddingImpl::row_count() const { return layout_->rows; }

at::Tensor EmbeddingImpl::table(int64_t number) const {
  TORCH_CHECK(number >= 0 && number < field_count(), "Embedding: field must be in [0, ", field_count(), "), got ",
              number);
  const torch::NoGradGuard no_grad;
  const FieldLayout& field = layout_->fields[static_cast<std::size_t>(number)];
  const at::Tensor values = rows_of(is_dense() ? weight : latent, field).narrow(1, 0, field.width);
  if (is_dense()) return values.clone(at::MemoryFormat::Contiguous);
  return at::addmm(offset[number], values, basis.narrow(0, field.basis_row, field.width));
}

at::Tensor EmbeddingImpl::wide_weights() const {
  if (!options.wide) return {};
  std::vector<at::Tensor> parts;
  for (const FieldLayout& field : layout_->fields) {
    parts.push_back(rows_of(is_dense() ? weight : latent, field).select(1, field.width));
  }
  return at::cat(parts);
}

void EmbeddingImpl::allocate(const at::TensorOptions& like) {
  for (const char* name : {"weight", "latent", "basis", "offset"}) {
    if (parameters_.contains(name)) parameters_.erase(name);
  }
  weight = latent = basis = offset = at::Tensor();
  layout_ = std::make_shared<EmbeddingLayout>(options);
  if (is_dense()) {
    weight = register_parameter("weight", torch::empty({layout_->rows, layout_->dim + layout_->wide}, like));
    return;
  }
  latent = register_parameter("latent", torch::empty({layout_->elements}, like));
  basis = register_parameter("basis", torch::empty({layout_->basis_rows, layout_->dim}, like));
  offset = register_parameter("offset", torch::empty({field_count(), layout_->dim}, like));
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
