#include "libafm/serve/stored_embedding.h"

#include <algorithm>
#include <utility>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"

namespace afm::serve {
namespace {

constexpr const char* kPath = "embedding";

void refuse(const std::string& what) { fail<FormatError>("layer '{}' {}", kPath, what); }

void check_tiers(const std::vector<Tier>& tiers, int64_t rank, int64_t cardinality) {
  if (tiers.empty()) return;
  if (tiers[0].rank != rank) refuse("must have tiers that start with the rank of their field");
  int64_t rows = 0;
  for (const Tier& tier : tiers) {
    if (tier.rows < 1 || tier.rows > cardinality) refuse("must have tiers of at least 1 row, within their field");
    if (tier.rank < 0 || tier.rank > rank) refuse("must have tiers whose ranks do not grow");
    rank = tier.rank;
    rows += tier.rows;
    if (rows > cardinality) break;
  }
  if (rows != cardinality) refuse("must have tiers that cover all ids of their field");
}

void check_plan(const ModelHeader& header, const LayerPlan& plan, bool wide) {
  const auto cardinalities = header.schema.cardinalities();
  const std::size_t fields = cardinalities.size();
  if (plan.units != 0) refuse("has no units");
  if (plan.ranks.empty()) {
    if (plan.joint || !plan.tiers.empty()) refuse("must have ranks, to be joint or to have tiers");
    return;
  }
  if (plan.ranks.size() != fields) refuse("must have one rank per field");
  const int64_t largest = header.options.embedding_dim + (plan.joint ? 1 : 0);
  for (const int64_t rank : plan.ranks) {
    if (rank < 0 || rank > largest) refuse(fmt::format("must have ranks in [0, {}], got {}", largest, rank));
  }
  if (plan.joint && (!wide || plan.basis == Basis::kShared)) {
    refuse("can be joint only with wide weights and without a shared basis");
  }
  if (plan.tiers.empty()) return;
  if (plan.tiers.size() != fields) refuse("must have one list of tiers per field");
  for (std::size_t j = 0; j < fields; ++j) check_tiers(plan.tiers[j], plan.ranks[j], cardinalities[j]);
}

// Lays the fields out one after the other, and counts what the tensors must hold.
class Layout {
 public:
  Layout(StoredEmbedding& embedding, const LayerPlan& plan, bool stores_wide)
      : embedding_(embedding), plan_(plan), wide_(stores_wide) {}

  void add(const FieldSpec& spec) {
    const std::size_t j = embedding_.fields.size();
    StoredField field{.name = spec.name,
                      .cardinality = spec.cardinality,
                      .first_slot = slots_,
                      .slots = spec.slots(),
                      .multi = spec.kind == FieldKind::kMulti,
                      .width = plan_.ranks.empty() ? embedding_.dim : plan_.ranks[j]};
    const bool tiered = !plan_.tiers.empty() && !plan_.tiers[j].empty();
    int64_t first = 0;
    for (const Tier& tier : tiered ? plan_.tiers[j] : std::vector<Tier>{{spec.cardinality, field.width}}) {
      first = add_tier(field, tier, first);
    }
    rows_ += spec.cardinality;
    slots_ += field.slots;
    scale_columns_ += field.width;
    widest_ = std::max(widest_, field.width);
    const bool shared = plan_.basis == Basis::kShared;
    field.basis_row = shared ? 0 : basis_rows_;
    basis_rows_ = shared ? widest_ : basis_rows_ + field.width;
    embedding_.fields.push_back(std::move(field));
  }

  int64_t rows() const { return rows_; }
  int64_t elements() const { return elements_; }
  int64_t basis_rows() const { return basis_rows_; }
  int64_t scale_rows() const { return scale_rows_; }
  int64_t scale_columns() const { return scale_columns_; }

 private:
  int64_t add_tier(StoredField& field, const Tier& tier, int64_t first) {
    const int64_t stored = tier.shared ? 1 : tier.rows, size = tier.rank + (wide_ ? 1 : 0);
    field.tiers.push_back({.first = first,
                           .end = first + tier.rows,
                           .start = elements_,
                           .stride = tier.shared ? 0 : size,
                           .rank = tier.rank,
                           .scale = scale_rows_});
    if (__builtin_add_overflow(elements_, checked_product(stored, size), &elements_)) refuse("is too large");
    if (tier.rank > 0) scale_rows_ += stored;
    return first + tier.rows;
  }

  StoredEmbedding& embedding_;
  const LayerPlan& plan_;
  bool wide_;
  int64_t rows_ = 0, slots_ = 0, elements_ = 0, basis_rows_ = 0, widest_ = 0, scale_rows_ = 0, scale_columns_ = 0;
};

struct StoredTable {
  const std::byte* elements = nullptr;
  const std::byte* row_scale = nullptr;  // null: by column
};

void attach(StoredEmbedding& embedding, const StoredTable& stored, Bits bits, bool wide,
            const std::vector<float>& wide_scale) {
  const float* column_scale = embedding.column_scale.data();
  for (std::size_t j = 0; j < embedding.fields.size(); ++j) {
    StoredField& field = embedding.fields[j];
    field.table = {.bits = bits,
                   .elements = stored.elements,
                   .row_scale = stored.row_scale,
                   .wide = wide,
                   .width = field.width,
                   .tiers = field.tiers.data()};
    if (!wide_scale.empty()) field.table.wide_scale = wide_scale[j];
    if (embedding.column_scale.empty()) continue;
    field.table.column_scale = column_scale;
    column_scale += field.width;
  }
}

void attach_floats(StoredTensors& tensors, StoredEmbedding& embedding, const Layout& layout, bool dense, bool wide) {
  const std::string name = dense ? "embedding.weight" : "embedding.latent";
  embedding.floats = dense ? tensors.floats(name, {layout.rows(), embedding.dim + (wide ? 1 : 0)})
                           : tensors.floats(name, {layout.elements()});
  if (embedding.floats.owned.empty()) tensors.keep(name);
  const auto* elements = reinterpret_cast<const std::byte*>(embedding.floats.values.data());
  attach(embedding, {.elements = elements}, Bits::kFloat, wide, {});
}

void attach_integers(StoredTensors& tensors, StoredEmbedding& embedding, const Layout& layout, const LayerPlan& plan,
                     bool wide) {
  const std::string path = plan.ranks.empty() ? "embedding.weight" : "embedding.latent";
  const std::string codes = path + ".codes", scale = path + ".scale";
  const int64_t elements = layout.elements();
  const bool by_row = plan.scale == ScaleBy::kRow, is_int8 = plan.bits == Bits::kInt8;
  const int64_t fields = static_cast<int64_t>(embedding.fields.size());
  const int64_t of_values = by_row ? layout.scale_rows() : layout.scale_columns();
  StoredTable stored{
      .elements =
          tensors.bytes(codes, is_int8 ? DType::kI8 : DType::kU8, {is_int8 ? elements : elements / 2 + elements % 2})
              .data()};
  // Scales by row are read where they lie.
  const auto scales = tensors.bytes(scale, DType::kBF16, {of_values + (wide ? fields : 0)});
  std::vector<float> by_column, wide_scale;
  for (int64_t i = by_row ? of_values : 0; i < of_values + (wide ? fields : 0); ++i) {
    (i < of_values ? by_column : wide_scale).push_back(bfloat16_at(scales.data() + 2 * i));
  }
  if (by_row && of_values > 0) stored.row_scale = scales.data();
  tensors.keep(codes);
  tensors.keep(scale);
  embedding.column_scale = std::move(by_column);
  attach(embedding, stored, plan.bits, wide, wide_scale);
}

}  // namespace

StoredEmbedding read_embedding(StoredTensors& tensors, const ModelHeader& header, bool wide) {
  const LayerPlan& plan = header.plan_of(kPath);
  check_plan(header, plan, wide);
  const bool dense = plan.ranks.empty(), stores_wide = wide && !plan.joint;
  StoredEmbedding embedding{.fields = {},
                            .dim = header.options.embedding_dim,
                            .decoded = header.options.embedding_dim + (plan.joint ? 1 : 0),
                            .folded = !dense && plan.basis == Basis::kNone,
                            .expands = !dense && plan.basis != Basis::kNone,
                            .joint = plan.joint};
  Layout layout(embedding, plan, stores_wide);
  for (const FieldSpec& spec : header.schema.fields) {
    if (spec.has_ids()) layout.add(spec);
  }
  if (plan.bits == Bits::kFloat) {
    attach_floats(tensors, embedding, layout, dense, stores_wide);
  } else {
    attach_integers(tensors, embedding, layout, plan, stores_wide);
  }
  if (embedding.expands) {
    embedding.basis = tensors.float_vector("embedding.basis", {layout.basis_rows(), embedding.decoded});
    embedding.offset =
        tensors.float_vector("embedding.offset", {static_cast<int64_t>(embedding.fields.size()), embedding.decoded});
  }
  return embedding;
}

}  // namespace afm::serve
