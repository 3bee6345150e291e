#include "libafm/serve/program.h"

#include <algorithm>

namespace afm::serve {
namespace {

struct Activations {
  float* begin = nullptr;
  int64_t stride = 0;
  float* row(int64_t r) const { return begin + r * stride; }
};

// Where a block of rows lies while it passes the layers.
struct Buffers {
  Activations x, even, odd, joined, x0;
  float* linear = nullptr;
  float* outputs = nullptr;  // [rows]
};

Activations take(Scratch& scratch, int64_t width) {
  const int64_t stride = padded_stride(width);
  return {scratch.take(kLinearRows * stride), stride};
}

int64_t floats_of(int64_t width) { return Scratch::padded(kLinearRows * padded_stride(width)); }

int64_t x_width(const Features& features) { return features.carried + features.width + 1; }

Buffers take_buffers(const Program& program, const Features& features, Scratch& scratch) {
  Buffers buffers;
  buffers.x = take(scratch, x_width(features));
  buffers.x.begin += features.carried;
  buffers.even = take(scratch, program.widest);
  buffers.odd = take(scratch, program.widest);
  if (program.joins()) {
    buffers.joined = take(scratch, program.width + program.mlp_width);
    buffers.x0 = take(scratch, program.width);
  }
  buffers.outputs = scratch.take(kLinearRows);
  buffers.linear = scratch.take(std::max(program.linear_scratch, features.linear_scratch));
  return buffers;
}

struct Block {
  const Kernels& kernels;
  const Buffers& buffers;
  int64_t rows;
};

struct Layer {
  const Matrix& matrix;
  const float* bias;
  bool relu;
};

void apply(const Block& block, const Layer& layer, Activations x, Activations y) {
  const int64_t outputs = layer.matrix.rows();
  if (outputs == 0) return;
  if (layer.matrix.columns() == 0) {
    for (int64_t r = 0; r < block.rows; ++r) {
      for (int64_t i = 0; i < outputs; ++i) y.row(r)[i] = layer.relu ? std::max(layer.bias[i], 0.0F) : layer.bias[i];
    }
    return;
  }
  block.kernels.linear(layer.matrix.packed(), {.x = x.begin,
                                               .x_stride = x.stride,
                                               .rows = block.rows,
                                               .bias = layer.bias,
                                               .y = y.begin,
                                               .y_stride = y.stride,
                                               .relu = layer.relu,
                                               .scratch = block.buffers.linear});
}

// Runs a chain from `x` to `y`; `first` and its bias are the matrix of the first step where they are not in the chain.
void run_chain(const Block& block, const Chain& chain, const Matrix& first, const float* first_bias, Activations x,
               Activations y) {
  for (std::size_t i = 0; i < chain.size(); ++i) {
    const Step& step = chain[i];
    const Activations to = i + 1 == chain.size() ? y : i % 2 == 0 ? block.buffers.even : block.buffers.odd;
    apply(block, {i == 0 ? first : step.matrix, i == 0 ? first_bias : step.bias.data(), step.relu}, x, to);
    x = to;
  }
}

void run_chain(const Block& block, const Chain& chain, Activations x, Activations y) {
  run_chain(block, chain, chain[0].matrix, chain[0].bias.data(), x, y);
}

// One output per row, added to the logits.
Activations single_output(const Block& block) { return {block.buffers.outputs, 1}; }

void add_output(const Block& block, float* logits) {
  for (int64_t r = 0; r < block.rows; ++r) logits[r] += block.buffers.outputs[r];
}

// a_{l+1} = a_l (1 + p_l) + shift_l over the layers of the vector form, from a_0 = 1.
float pass_layers(const float* p, const float* shift, std::size_t layers) {
  float a = 1;
  for (std::size_t l = 0; l < layers; ++l) a += a * p[l] + shift[l];
  return a;
}

// The features of all fields: `x` itself, or those of the part between those of the other part.
Activations all_features(const Block& block, const Features& features, const Given& given, int64_t width) {
  const Activations &x = block.buffers.x, &x0 = block.buffers.x0;
  if (given.row == nullptr) return x;
  for (int64_t r = 0; r < block.rows; ++r) {
    std::copy_n(given.row, width, x0.row(r));
    const float* from = x.row(r);
    for (const Columns& run : features.columns) {
      std::copy_n(from, run.count, x0.row(r) + run.from);
      from += run.count;
    }
  }
  return x0;
}

void cross_by_vectors(const Block& block, const Program& program, Activations dots, Activations x0) {
  for (int64_t r = 0; r < block.rows; ++r) {
    float* to = block.buffers.joined.row(r);
    std::copy_n(program.sum.data(), program.width, to);
    block.kernels.axpy(pass_layers(dots.row(r), program.shift.data(), program.shift.size()), x0.row(r), to,
                       program.width);
  }
}

void cross_by_matrices(const Block& block, const Program& program, const Features& features, const float* first_bias,
                       Activations x0) {
  const Activations& x = block.buffers.joined;
  for (int64_t r = 0; r < block.rows; ++r) std::copy_n(x0.row(r), program.width, x.row(r));
  for (std::size_t l = 0; l < program.cross_layers.size(); ++l) {
    const Chain& chain = program.cross_layers[l];
    // A chain of two steps passes through `even`.
    const Activations product = block.buffers.odd;
    if (l == 0) {
      run_chain(block, chain, features.first[kCross], first_bias, block.buffers.x, product);
    } else {
      run_chain(block, chain, x, product);
    }
    for (int64_t r = 0; r < block.rows; ++r) {
      block.kernels.multiply_add(x0.row(r), product.row(r), x.row(r), program.width);
    }
  }
}

void add_cross(const Block& block, const Program& program, const Features& features, const Given& given,
               const float* first_bias, float* logits) {
  if (program.cross == Cross::kMatrix) {
    const Activations x0 = all_features(block, features, given, program.width);
    return cross_by_matrices(block, program, features, first_bias, x0);
  }
  const Activations dots = block.buffers.even;
  run_chain(block, program.cross_layers[0], features.first[kCross], first_bias, block.buffers.x, dots);
  if (program.cross == Cross::kVector) {
    return cross_by_vectors(block, program, dots, all_features(block, features, given, program.width));
  }
  const std::size_t layers = program.shift.size() - 1;
  for (int64_t r = 0; r < block.rows; ++r) {
    const float* p = dots.row(r);
    logits[r] += pass_layers(p, program.shift.data(), layers) * p[layers] + program.shift[layers];
  }
}

const float* bias_of(const Program& program, const Given& given, int reader) {
  const float* shared = given.share.first[reader];
  return shared != nullptr ? shared : program.reader(reader)[0].bias.data();
}

}  // namespace

const Chain& Program::reader(int i) const {
  static const Chain kAbsent;
  if (i == kMlp) return mlp;
  if (i == kWide) return wide;
  return cross_layers.empty() ? kAbsent : cross_layers[0];
}

int64_t program_scratch(const Program& program, const Features& features) {
  const int64_t joined = program.joins() ? floats_of(program.width + program.mlp_width) + floats_of(program.width) : 0;
  return floats_of(x_width(features)) + 2 * floats_of(program.widest) + joined + Scratch::padded(kLinearRows) +
         Scratch::padded(std::max(program.linear_scratch, features.linear_scratch)) + feature_scratch(features);
}

void run(const Kernels& kernels, const Program& program, const Features& features, const FeatureRows& input,
         const Given& given, float* logits, Scratch scratch) {
  const Buffers buffers = take_buffers(program, features, scratch);
  const Block block{kernels, buffers, input.rows};
  read_features(kernels, features, input, given.share, buffers.x.begin, buffers.x.stride, logits, scratch);
  for (const int reader : {kMlp, kWide}) {
    const Chain& chain = program.reader(reader);
    if (chain.empty()) continue;
    const bool joins = reader == kMlp && program.joins();
    const Activations to =
        joins ? Activations{buffers.joined.begin + program.width, buffers.joined.stride} : single_output(block);
    run_chain(block, chain, features.first[reader], bias_of(program, given, reader), buffers.x, to);
    if (!joins) add_output(block, logits);
  }
  if (program.cross == Cross::kNone) return;
  add_cross(block, program, features, given, bias_of(program, given, kCross), logits);
  if (!program.joins()) return;
  run_chain(block, program.head, buffers.joined, single_output(block));
  add_output(block, logits);
}

int64_t share_scratch(const Program& program, const Features& features) {
  int64_t floats = Scratch::padded(features.sum_width) + (program.joins() ? Scratch::padded(program.width) : 0);
  for (const Matrix& first : features.first) floats += Scratch::padded(first.rows());
  return floats;
}

Given share_of(const Kernels& kernels, const Program& program, const Features& features, const FeatureRows& row,
               Scratch& kept) {
  Given given;
  float* sum = kept.take(features.sum_width);
  float* first[kReaders] = {};
  for (int i = 0; i < kReaders; ++i) first[i] = kept.take(features.first[i].rows());
  float* all = program.joins() ? kept.take(program.width) : nullptr;

  Scratch scratch = kept;
  const Buffers buffers = take_buffers(program, features, scratch);
  const Block block{kernels, buffers, 1};
  const float* x = buffers.x.begin;
  read_features(kernels, features, row, {.constant = program.constant}, buffers.x.begin, buffers.x.stride,
                &given.share.constant, scratch);
  for (int i = 0; i < kReaders; ++i) {
    const Chain& chain = program.reader(i);
    if (chain.empty()) continue;
    apply(block, {features.first[i], chain[0].bias.data(), /*relu=*/false}, buffers.x, {first[i], 0});
    given.share.first[i] = first[i];
  }
  if (features.pairs != Pairs::kNone) {
    sum_fields(kernels, features, x, sum);
    given.share.pairs = sum;
    // The own part of the decoded fields is in the constant; the sum's square counts with that of the other part.
    if (features.pairs == Pairs::kDecoded) given.share.constant -= 0.5F * kernels.dot(sum, sum, features.dim);
  }
  if (all != nullptr) {
    for (const Columns& run : features.columns) {
      std::copy_n(x, run.count, all + run.from);
      x += run.count;
    }
    given.row = all;
  }
  return given;
}

}  // namespace afm::serve
