#include "libafm/serve/stored_layer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"

namespace afm::serve {
namespace {

constexpr double kBatchNormEpsilon = 1e-5;  // torch's default, which no option changes

std::size_t size(int64_t n) { return static_cast<std::size_t>(n); }

// int4: element 2i in the low four bits of byte i (nn/model_file.h).
std::vector<int8_t> unpacked_codes(std::span<const std::byte> bytes, Bits bits, int64_t count) {
  std::vector<int8_t> codes(size(count));
  for (std::size_t i = 0; i < codes.size(); ++i) {
    if (bits == Bits::kInt8) {
      codes[i] = std::to_integer<int8_t>(bytes[i]);
    } else {
      const int four = std::to_integer<int>(bytes[i / 2]) >> (i % 2 == 0 ? 0 : 4) & 15;
      codes[i] = static_cast<int8_t>(four < 8 ? four : four - 16);
    }
  }
  return codes;
}

std::vector<uint8_t> packed_nibbles(const std::vector<int8_t>& codes) {
  std::vector<uint8_t> bytes((codes.size() + 1) / 2);
  for (std::size_t i = 0; i < codes.size(); ++i) {
    bytes[i / 2] |= static_cast<uint8_t>((codes[i] & 15) << (i % 2 == 0 ? 0 : 4));
  }
  return bytes;
}

// The chosen columns of a row-major matrix of `width` columns.
template <typename Element>
std::vector<Element> chosen(const std::vector<Element>& all, int64_t width, std::span<const Columns> columns) {
  std::vector<Element> picked;
  for (auto row = all.begin(); row != all.end(); row += width) {
    for (const Columns& run : columns) picked.insert(picked.end(), row + run.from, row + run.from + run.count);
  }
  return picked;
}

void check_linear_plan(const std::string& path, LayerShape shape, const LayerPlan& plan) {
  if (plan.ranks.size() > 1 || plan.joint || !plan.tiers.empty() || plan.units != 0) {
    fail<FormatError>("layer '{}' is a linear layer, its plan is another's", path);
  }
  const int64_t largest = std::min(shape.in, shape.out);
  if (!plan.ranks.empty() && (plan.ranks[0] < 0 || plan.ranks[0] > largest)) {
    fail<FormatError>("layer '{}' must have a rank in [0, {}], got {}", path, largest, plan.ranks[0]);
  }
}

}  // namespace

StoredMatrix::StoredMatrix(std::vector<float> floats, int64_t rows, int64_t columns)
    : rows_(rows), columns_(columns), floats_(std::move(floats)) {}

StoredMatrix::StoredMatrix(StoredTensors& tensors, const std::string& path, int64_t rows, int64_t columns, Bits bits,
                           ScaleBy by)
    : rows_(rows), columns_(columns), bits_(bits) {
  if (bits == Bits::kFloat) {
    floats_ = tensors.float_vector(path, {rows, columns});
    return;
  }
  const int64_t count = checked_product(rows, columns);
  const std::string codes = path + ".codes", scale = path + ".scale";
  const auto stored = bits == Bits::kInt8 ? tensors.bytes(codes, DType::kI8, {count})
                                          : tensors.bytes(codes, DType::kU8, {count / 2 + count % 2});
  codes_ = unpacked_codes(stored, bits, count);
  if (count == 0) {
    tensors.scales(scale, 0);
  } else {
    (by == ScaleBy::kRow ? row_scale_ : column_scale_) = tensors.scales(scale, by == ScaleBy::kRow ? rows : columns);
  }
}

float StoredMatrix::value(int64_t row, int64_t column) const {
  const std::size_t index = size(row * columns_ + column);
  float value = bits_ == Bits::kFloat ? floats_[index] : static_cast<float>(codes_[index]);
  if (!row_scale_.empty()) value *= row_scale_[size(row)];
  return column_scale_.empty() ? value : value * column_scale_[size(column)];
}

void StoredMatrix::scale_rows(std::span<const float> gain) {
  if (bits_ != Bits::kFloat) {
    if (row_scale_.empty()) row_scale_.assign(size(rows_), 1.0F);
    for (std::size_t i = 0; i < gain.size(); ++i) row_scale_[i] *= gain[i];
    return;
  }
  for (std::size_t i = 0; i < gain.size(); ++i) {
    for (std::size_t j = 0; j < size(columns_); ++j) floats_[i * size(columns_) + j] *= gain[i];
  }
}

Matrix StoredMatrix::packed(std::span<const Columns> columns) const {
  MatrixSource source{.bits = bits_, .rows = rows_};
  for (const Columns& run : columns) source.columns += run.count;
  const std::vector<float> floats = chosen(floats_, columns_, columns);
  const std::vector<int8_t> codes = chosen(codes_, columns_, columns);
  const std::vector<uint8_t> nibbles = bits_ == Bits::kInt4 ? packed_nibbles(codes) : std::vector<uint8_t>();
  const std::vector<float> column_scale = chosen(column_scale_, columns_, columns);
  const void* const elements[] = {floats.data(), codes.data(), nibbles.data()};  // in the order of Bits
  source.elements = elements[static_cast<std::size_t>(bits_)];
  source.row_scale = row_scale_.empty() ? nullptr : row_scale_.data();
  source.column_scale = column_scale.empty() ? nullptr : column_scale.data();
  return Matrix(source);
}

Matrix StoredMatrix::packed() const {
  const Columns all{0, columns_};
  return packed({&all, 1});
}

std::vector<StoredAffine> read_linear(StoredTensors& tensors, const std::string& path, LayerShape shape,
                                      const LayerPlan& plan) {
  check_linear_plan(path, shape, plan);
  const auto matrix = [&](const char* name, int64_t rows, int64_t columns) {
    return StoredMatrix(tensors, path + name, rows, columns, plan.bits, plan.scale);
  };
  std::vector<StoredAffine> maps;
  if (plan.ranks.empty()) {
    auto bias = shape.bias ? tensors.float_vector(path + ".bias", {shape.out}) : std::vector<float>(size(shape.out));
    maps.push_back({matrix(".weight", shape.out, shape.in), std::move(bias)});
    return maps;
  }
  const int64_t rank = plan.ranks[0];
  maps.push_back({matrix(".down", rank, shape.in), tensors.float_vector(path + ".down_bias", {rank}),
                  plan.activation != FactorActivation::kNone});
  maps.push_back({matrix(".up", shape.out, rank), tensors.float_vector(path + ".up_bias", {shape.out})});
  return maps;
}

void absorb_batch_norm(StoredTensors& tensors, const std::string& path, StoredAffine& affine) {
  const int64_t width = affine.matrix.rows();
  const auto weight = tensors.float_vector(path + ".weight", {width});
  const auto bias = tensors.float_vector(path + ".bias", {width});
  const auto mean = tensors.float_vector(path + ".running_mean", {width});
  const auto variance = tensors.float_vector(path + ".running_var", {width});
  tensors.ignore(path + ".num_batches_tracked");
  std::vector<float> gain(size(width));
  for (std::size_t i = 0; i < gain.size(); ++i) {
    const double exact = weight[i] / std::sqrt(variance[i] + kBatchNormEpsilon);
    gain[i] = static_cast<float>(exact);
    affine.bias[i] = static_cast<float>(exact * (static_cast<double>(affine.bias[i]) - mean[i]) + bias[i]);
  }
  affine.matrix.scale_rows(gain);
}

StoredAffine joined(const std::vector<StoredAffine>& maps) {
  if (maps.size() == 1) return maps[0];
  const StoredAffine &down = maps[0], &up = maps[1];
  const int64_t out = up.matrix.rows(), rank = up.matrix.columns(), in = down.matrix.columns();
  std::vector<float> weight, bias;
  for (int64_t i = 0; i < out; ++i) {
    double constant = up.bias[size(i)];
    for (int64_t c = 0; c < rank; ++c) {
      constant += static_cast<double>(up.matrix.value(i, c)) * down.bias[size(c)];
    }
    bias.push_back(static_cast<float>(constant));
    for (int64_t j = 0; j < in; ++j) {
      double sum = 0;
      for (int64_t c = 0; c < rank; ++c) {
        sum += static_cast<double>(up.matrix.value(i, c)) * down.matrix.value(c, j);
      }
      weight.push_back(static_cast<float>(sum));
    }
  }
  return {StoredMatrix(std::move(weight), out, in), std::move(bias)};
}

}  // namespace afm::serve
