#include "libafm/nn/quantize.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>
#include <torch/types.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/nn/integer_weight.h"
#include "libafm/nn/quantize_rounding.h"

namespace afm::nn {
namespace {

int64_t code_bytes(Bits bits, int64_t elements) { return bits == Bits::kInt8 ? elements : (elements + 1) / 2; }

GroupIndex index_of(const ScaleGroups& groups) {
  return are_of_a_matrix(groups) ? GroupIndex() : group_index(groups, at::kCPU);
}

// [n] int8 in [-8, 7] -> [(n + 1) / 2] uint8.
at::Tensor packed(const at::Tensor& codes) {
  const at::Tensor halves = at::constant_pad_nd(codes, {0, codes.size(0) % 2}).bitwise_and(15).to(at::kByte);
  return halves.slice(0, 0, halves.size(0), 2).bitwise_or(halves.slice(0, 1, halves.size(0), 2).mul(16));
}

// The other way, with the unused half: [2b] int8.
at::Tensor unpacked(const at::Tensor& bytes) {
  const at::Tensor halves = at::stack({bytes.bitwise_and(15), bytes.floor_divide(16)}, 1).flatten().to(at::kChar);
  return halves.sub(halves.gt(7).to(at::kChar).mul(16));
}

void check_tensor(const char* name, const at::Tensor& tensor, at::ScalarType dtype, int64_t length) {
  if (tensor.defined() && tensor.scalar_type() == dtype && tensor.dim() == 1 && tensor.size(0) == length) return;
  fail<FormatError>("its {} must be {} [{}], got {} [{}]", name, at::toString(dtype), length,
                    tensor.defined() ? at::toString(tensor.scalar_type()) : "none",
                    fmt::join(tensor.defined() ? tensor.sizes() : at::IntArrayRef(), ", "));
}

// [elements] int8, each in range.
at::Tensor codes_of(const at::Tensor& stored, Bits bits, int64_t elements) {
  if (elements == 0) return at::empty({0}, at::kChar);
  const at::Tensor all = bits == Bits::kInt8 ? stored : unpacked(stored);
  if (all.min().item<int64_t>() < -largest_code(bits)) {
    fail<FormatError>("its codes must be at least {}, got {}", -largest_code(bits), all.min().item<int64_t>());
  }
  if (all.size(0) > elements && all[elements].item<int64_t>() != 0) {
    fail<FormatError>("the unused half of the last byte of its codes must be 0, got {}", all[elements].item<int64_t>());
  }
  return all.narrow(0, 0, elements);
}

}  // namespace

ScaleGroups matrix_groups(int64_t rows, int64_t columns, ScaleBy by) {
  if (rows * columns == 0) return {};
  return {.blocks = {{.start = 0, .rows = rows, .stride = columns, .width = columns, .by = by, .first_group = 0}},
          .elements = rows * columns,
          .count = by == ScaleBy::kRow ? rows : columns};
}

int64_t largest_code(Bits bits) { return bits == Bits::kInt8 ? 127 : 7; }

int64_t stored_bytes(Bits bits, const ScaleGroups& groups) {
  constexpr int64_t kScaleBytes = 2;
  return code_bytes(bits, groups.elements) + kScaleBytes * groups.count;
}

at::Tensor fake_quantize(const at::Tensor& x, Bits bits, const ScaleGroups& groups) {
  return IntegerWeight(bits, groups).values(x, /*keep=*/false);
}

StoredIntegers store_integers(const at::Tensor& x, Bits bits, const ScaleGroups& groups) {
  const torch::NoGradGuard no_grad;
  const at::Tensor scale = at::zeros({groups.count}, at::kBFloat16);
  if (x.numel() == 0) return {at::empty({0}, bits == Bits::kInt8 ? at::kChar : at::kByte), scale};
  const Rounded rounded = round_with_aten(x.detach().cpu(), bits, groups, index_of(groups));
  scale.copy_(rounded.scale);
  // What is not finite has such a scale; its codes do not matter.
  const at::Tensor codes = rounded.codes.flatten().nan_to_num(0.0, 0.0, 0.0).to(at::kChar);
  return {bits == Bits::kInt8 ? codes : packed(codes), scale};
}

at::Tensor load_integers(const StoredIntegers& stored, Bits bits, const ScaleGroups& groups) {
  const torch::NoGradGuard no_grad;
  check_tensor("codes", stored.codes, bits == Bits::kInt8 ? at::kChar : at::kByte, code_bytes(bits, groups.elements));
  check_tensor("scale", stored.scale, at::kBFloat16, groups.count);
  if (stored.scale.lt(0).any().item<bool>()) fail<FormatError>("its scales must be at least 0");
  const at::Tensor codes = codes_of(stored.codes, bits, groups.elements);
  const GroupIndex index = group_index(groups, at::kCPU);
  const at::Tensor scale = stored.scale.to(at::kFloat).index_select(0, index.group).index_select(0, index.piece);
  return codes.to(at::kFloat).mul_(scale);
}

ScaleBy choose_scale_by(const at::Tensor& matrix, Bits bits) {
  TORCH_CHECK(matrix.dim() == 2, "choose_scale_by: expected a matrix [m, n], got ", matrix.sizes());
  const torch::NoGradGuard no_grad;
  const auto error = [&](ScaleBy by) {
    const at::Tensor rounded = fake_quantize(matrix, bits, matrix_groups(matrix.size(0), matrix.size(1), by));
    return (rounded - matrix).to(at::kDouble).square().sum().item<double>();
  };
  return error(ScaleBy::kColumn) < error(ScaleBy::kRow) ? ScaleBy::kColumn : ScaleBy::kRow;
}

}  // namespace afm::nn
