#include "libafm/serve/blueprint.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"

namespace afm::serve {
namespace {

// Reads the layers of one model, in the order of its forward pass.
class Reader {
 public:
  Reader(StoredTensors& tensors, const ModelHeader& header, const StoredEmbedding& embedding)
      : tensors_(tensors), header_(header), embedding_(embedding), dense_(header.schema.dense_count()) {
    for (std::size_t j = 0; j < embedding.fields.size(); ++j) result_.id_width += columns_of(embedding, j);
    result_.width = result_.id_width + dense_;
    if (result_.width == 0) fail<FormatError>("its layers have nothing to read: all ranks are 0");
    known_.emplace_back("embedding");
  }

  Blueprint read() {
    if (header_.kind == ModelKind::kDCN) {
      read_dcn();
    } else {
      read_first_order();
      append(result_.mlp, read_mlp());
      append(result_.mlp, linear("mlp.head", {mlp_width(), 1}));
      if (header_.kind == ModelKind::kDeepFM) read_pairs();
    }
    refuse_unknown_layers();
    return std::move(result_);
  }

 private:
  static void append(StoredChain& chain, StoredChain more) {
    std::move(more.begin(), more.end(), std::back_inserter(chain));
  }

  StoredChain linear(const std::string& path, LayerShape shape) {
    known_.push_back(path);
    return read_linear(tensors_, path, shape, header_.plan_of(path));
  }

  int64_t mlp_width() const { return header_.options.hidden.empty() ? result_.width : header_.options.hidden.back(); }

  // The hidden layers.
  StoredChain read_mlp() {
    StoredChain chain;
    int64_t width = result_.width;
    for (std::size_t i = 0; i < header_.options.hidden.size(); ++i) {
      const int64_t next = header_.options.hidden[i];
      StoredChain layer = linear(fmt::format("mlp.layers.{}", i), {width, next});
      if (header_.options.batch_norm) absorb_batch_norm(tensors_, fmt::format("mlp.norms.{}", i), layer.back());
      layer.back().relu = true;
      append(chain, std::move(layer));
      width = next;
    }
    return chain;
  }

  void read_first_order() {
    result_.constant = tensors_.float_vector("bias", {1})[0];
    const bool has_latent_weights = embedding_.folded && (embedding_.joint || header_.kind == ModelKind::kDeepFM);
    if (has_latent_weights) {
      result_.linear = tensors_.float_vector("wide_latent", {result_.id_width});
      result_.linear.resize(static_cast<std::size_t>(result_.width));
    }
    if (dense_ > 0) read_wide_dense(linear("wide_dense", {dense_, 1, /*bias=*/false}));
  }

  void read_wide_dense(const StoredChain& maps) {
    result_.linear.resize(static_cast<std::size_t>(result_.width));
    const bool is_linear = !maps[0].relu || maps[0].matrix.rows() == 0;
    const StoredAffine affine = is_linear ? joined(maps) : maps[0];
    std::vector<float> weights(static_cast<std::size_t>(result_.width));  // over all features
    for (int64_t i = 0; i < dense_; ++i) {
      weights[static_cast<std::size_t>(result_.id_width + i)] = affine.matrix.value(0, i);
    }
    if (is_linear) {
      result_.constant += affine.bias[0];
      std::copy(weights.begin() + result_.id_width, weights.end(), result_.linear.begin() + result_.id_width);
    } else {
      result_.wide = {{StoredMatrix(std::move(weights), 1, result_.width), affine.bias, /*relu=*/true}, maps[1]};
    }
  }

  void read_pairs() {
    if (!embedding_.folded) {
      result_.pairs = Pairs::kValues;
    } else if (header_.options.interaction == InteractionSpace::kLatent) {
      result_.pairs = Pairs::kLatents;
    } else {
      result_.pairs = Pairs::kDecoded;
      result_.interaction_basis = tensors_.float_vector("interaction.basis", {result_.id_width, embedding_.dim});
    }
  }

  void read_dcn() {
    const int64_t layers = header_.options.cross_layers, width = result_.width;
    if (embedding_.folded) {
      if (header_.options.cross != CrossForm::kVector) {
        fail<FormatError>("its cross network must be of vectors, because its embedding has no basis");
      }
      result_.cross = Cross::kScalars;
      result_.shift = tensors_.float_vector("cross.shift", {layers + 1});
      result_.cross_layers = {
          {{StoredMatrix(tensors_.float_vector("cross.weight", {layers + 1, width}), layers + 1, width),
            tensors_.float_vector("cross.bias", {layers + 1})}}};
      result_.mlp = read_mlp();
      if (!result_.mlp.empty()) append(result_.mlp, linear("head", {mlp_width(), 1}));
      return;
    }
    result_.mlp = read_mlp();
    StoredChain head = linear("head", {width + (result_.mlp.empty() ? 0 : mlp_width()), 1});
    if (header_.options.cross == CrossForm::kMatrix) {
      result_.cross = Cross::kMatrix;
      for (int64_t l = 0; l < layers; ++l) {
        result_.cross_layers.push_back(linear(fmt::format("cross.layers.{}", l), {width, width}));
      }
      result_.head = std::move(head);
      return;
    }
    read_vectors(std::move(head));
  }

  // Note [The vector form without its layers] of nn/cross_net.cpp: x_l = a_l x_0 + B_l.
  void read_vectors(StoredChain head) {
    const int64_t layers = header_.options.cross_layers, width = result_.width;
    std::vector<float> weight = tensors_.float_vector("cross.weight", {layers, width});
    const std::vector<float> bias = tensors_.float_vector("cross.bias", {layers, width});
    std::vector<double> sum(static_cast<std::size_t>(width));  // B_l
    const auto product = [&](const float* vector) {
      double total = 0;
      for (std::size_t i = 0; i < sum.size(); ++i) total += sum[i] * vector[i];
      return total;
    };
    for (int64_t l = 0; l < layers; ++l) {
      result_.shift.push_back(static_cast<float>(product(weight.data() + l * width)));
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += bias[static_cast<std::size_t>(l * width) + i];
    }
    if (head[0].relu && head[0].matrix.rows() > 0) {
      result_.cross = Cross::kVector;
      result_.sum.assign(sum.begin(), sum.end());
      result_.head = std::move(head);
    } else {
      const StoredAffine row = joined(head);
      result_.cross = Cross::kScalars;
      std::vector<float> of_cross, of_mlp;
      for (int64_t i = 0; i < row.matrix.columns(); ++i) {
        (i < width ? of_cross : of_mlp).push_back(row.matrix.value(0, i));
      }
      result_.shift.push_back(static_cast<float>(product(of_cross.data()) + row.bias[0]));
      weight.insert(weight.end(), of_cross.begin(), of_cross.end());
      if (const auto count = static_cast<int64_t>(of_mlp.size()); count > 0) {
        result_.mlp.push_back({StoredMatrix(std::move(of_mlp), 1, count), {0.0F}});
      }
    }
    const int64_t rows = layers + (result_.cross == Cross::kScalars ? 1 : 0);
    result_.cross_layers = {
        {{StoredMatrix(std::move(weight), rows, width), std::vector<float>(static_cast<std::size_t>(rows))}}};
  }

  void refuse_unknown_layers() const {
    for (const auto& [name, plan] : header_.plan) {
      if (std::ranges::find(known_, name) == known_.end()) fail<FormatError>("its model has no layer '{}'", name);
    }
  }

  StoredTensors& tensors_;
  const ModelHeader& header_;
  const StoredEmbedding& embedding_;
  int64_t dense_;
  Blueprint result_;
  std::vector<std::string> known_;
};

Chain packed(const StoredChain& maps, bool reads_features) {
  Chain chain;
  for (const StoredAffine& map : maps) {
    const bool apart = reads_features && chain.empty();
    chain.push_back({apart ? Matrix() : map.matrix.packed(), map.bias, map.relu});
  }
  return chain;
}

void measure(Program& program, const Chain& chain, const StoredChain& maps) {
  for (const StoredAffine& map : maps) program.widest = std::max(program.widest, map.matrix.rows());
  for (const Step& step : chain)
    program.linear_scratch = std::max(program.linear_scratch, step.matrix.scratch_floats());
}

}  // namespace

int64_t columns_of(const StoredEmbedding& embedding, std::size_t j) {
  const StoredField& field = embedding.fields[j];
  if (!embedding.folded) return embedding.dim;
  return field.width + (field.multi ? 1 : 0);  // Note [Presence] in models/features.h
}

bool keeps_wide_weights(const ModelHeader& header) { return header.kind != ModelKind::kDCN; }

Blueprint read_blueprint(StoredTensors& tensors, const ModelHeader& header, const StoredEmbedding& embedding) {
  return Reader(tensors, header, embedding).read();
}

Program program_of(const Blueprint& blueprint) {
  Program program{.constant = blueprint.constant,
                  .mlp = packed(blueprint.mlp, true),
                  .wide = packed(blueprint.wide, true),
                  .cross = blueprint.cross,
                  .cross_layers = {},
                  .shift = blueprint.shift,
                  .sum = blueprint.sum,
                  .head = packed(blueprint.head, false),
                  .width = blueprint.width,
                  .widest = blueprint.width};
  for (const StoredChain& layer : blueprint.cross_layers) {
    program.cross_layers.push_back(packed(layer, program.cross_layers.empty()));
    measure(program, program.cross_layers.back(), layer);
  }
  measure(program, program.mlp, blueprint.mlp);
  measure(program, program.wide, blueprint.wide);
  measure(program, program.head, blueprint.head);
  if (program.joins() && !blueprint.mlp.empty()) program.mlp_width = blueprint.mlp.back().matrix.rows();
  return program;
}

}  // namespace afm::serve
