#include <algorithm>

#include "libafm/serve/blueprint.h"

namespace afm::serve {
namespace {

class Builder {
 public:
  Builder(const Blueprint& blueprint, const ModelHeader& header, const StoredEmbedding& embedding, const Choice& choice)
      : blueprint_(blueprint), header_(header), embedding_(embedding), choice_(choice) {}

  Features build() {
    features_.dim = embedding_.dim;
    features_.expands = embedding_.expands;
    features_.joint = embedding_.joint && embedding_.expands;
    features_.pairs = blueprint_.pairs;
    measure_sum();
    add_fields();
    features_.id_width = features_.width;
    add_dense();
    add_readers();
    add_linear();
    if (features_.pairs == Pairs::kDecoded) add_interaction();
    measure_scratch();
    return std::move(features_);
  }

 private:
  void measure_sum() {
    for (std::size_t j = 0; j < embedding_.fields.size(); ++j) {
      features_.widest = std::max({features_.widest, columns_of(embedding_, j), embedding_.fields[j].width});
    }
    if (features_.pairs == Pairs::kNone) return;
    features_.sum_width = features_.pairs == Pairs::kLatents ? features_.widest : features_.dim;
    const bool carries = choice_.carries && features_.pairs != Pairs::kDecoded;
    if (carries) features_.carried = features_.sum_width;
    if (carries && features_.pairs == Pairs::kLatents) features_.ranks.push_back(features_.carried);
  }

  void add_fields() {
    std::size_t j = 0;
    int64_t column = 0;
    for (std::size_t i = 0; i < header_.schema.fields.size(); ++i) {
      if (!header_.schema.fields[i].has_ids()) continue;
      const int64_t count = columns_of(embedding_, j);
      if (choice_.chosen[i]) {
        add_field(embedding_.fields[j], j, count);
        add_columns(column, count);
      }
      column += count;
      ++j;
    }
  }

  void add_field(const StoredField& stored, std::size_t j, int64_t count) {
    Field field{.slots = stored.slots,
                .multi = stored.multi,
                .presence = stored.multi && embedding_.folded,
                .column = features_.width};
    features_.places.push_back({.table = stored.table,
                                .slot = features_.slots,
                                .column = embedding_.expands ? features_.latents : features_.width});
    if (embedding_.expands) {
      features_.latents += stored.width;
      add_decoder(field, stored, j);
    }
    features_.slots += stored.slots;
    features_.lowest.insert(features_.lowest.end(), static_cast<std::size_t>(stored.slots), stored.multi ? -1 : 0);
    features_.highest.insert(features_.highest.end(), static_cast<std::size_t>(stored.slots),
                             static_cast<int32_t>(stored.cardinality - 1));
    features_.names.push_back(stored.name);
    if (embedding_.folded) features_.ranks.push_back(count);
    features_.fields.push_back(std::move(field));
  }

  // basis [k, decoded] of a field, as the layer [decoded, k] that it is.
  void add_decoder(Field& field, const StoredField& stored, std::size_t j) {
    const int64_t decoded = embedding_.decoded, rank = stored.width;
    std::vector<float> transposed;
    for (int64_t d = 0; d < decoded; ++d) {
      for (int64_t c = 0; c < rank; ++c) {
        transposed.push_back(embedding_.basis[static_cast<std::size_t>((stored.basis_row + c) * decoded + d)]);
      }
    }
    field.decoder = StoredMatrix(std::move(transposed), decoded, rank).packed();
    const auto offset = embedding_.offset.begin() + static_cast<int64_t>(j) * decoded;
    field.offset.assign(offset, offset + decoded);
  }

  void add_columns(int64_t from, int64_t count) {
    features_.width += count;
    auto& runs = features_.columns;
    if (!runs.empty() && runs.back().from + runs.back().count == from) {
      runs.back().count += count;
    } else {
      runs.push_back({from, count});
    }
  }

  void add_dense() {
    int64_t column = blueprint_.id_width;
    for (std::size_t i = 0; i < header_.schema.fields.size(); ++i) {
      if (header_.schema.fields[i].has_ids()) continue;
      if (choice_.chosen[i]) {
        add_columns(column, 1);
        ++features_.dense;
      }
      ++column;
    }
  }

  void add_readers() {
    const auto add = [&](int reader, const StoredChain& chain) {
      if (!chain.empty()) features_.first[reader] = chain[0].matrix.packed(features_.columns);
    };
    add(kMlp, blueprint_.mlp);
    add(kWide, blueprint_.wide);
    if (!blueprint_.cross_layers.empty()) add(kCross, blueprint_.cross_layers[0]);
  }

  // Without the zeros in front, which are all columns of the ids in a model that is not folded.
  void add_linear() {
    if (blueprint_.linear.empty()) return;
    for (const Columns& run : features_.columns) {
      const auto from = blueprint_.linear.begin() + run.from;
      features_.linear.insert(features_.linear.end(), from, from + run.count);
    }
    const auto first = std::ranges::find_if(features_.linear, [](float weight) { return weight != 0; });
    features_.linear_begin = first - features_.linear.begin();
    features_.linear.erase(features_.linear.begin(), first);
  }

  void add_interaction() {
    const int64_t dim = features_.dim;
    for (const Columns& run : features_.columns) {
      for (int64_t c = run.from; c < std::min(run.from + run.count, blueprint_.id_width); ++c) {
        const auto from = blueprint_.interaction_basis.begin() + c * dim;
        features_.basis.insert(features_.basis.end(), from, from + dim);
        features_.basis.resize(features_.basis.size() + static_cast<std::size_t>(Scratch::padded(dim) - dim));
      }
    }
  }

  void measure_scratch() {
    int64_t& most = features_.linear_scratch;
    for (const Field& field : features_.fields) most = std::max(most, field.decoder.scratch_floats());
    for (const Matrix& first : features_.first) most = std::max(most, first.scratch_floats());
  }

  const Blueprint& blueprint_;
  const ModelHeader& header_;
  const StoredEmbedding& embedding_;
  const Choice& choice_;
  Features features_;
};

}  // namespace

Features features_of(const Blueprint& blueprint, const ModelHeader& header, const StoredEmbedding& embedding,
                     const Choice& choice) {
  return Builder(blueprint, header, embedding, choice).build();
}

}  // namespace afm::serve
