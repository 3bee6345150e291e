#include <limits>
#include <vector>

#include <ATen/ATen.h>

#include "libafm/nn/quantize_rounding.h"

namespace afm::nn {
namespace {

constexpr int64_t kRoundedRowsPerPiece = 256;

at::Tensor largest_of_groups(const at::Tensor& x, const ScaleGroups& groups, const GroupIndex& index) {
  if (are_of_a_matrix(groups)) return x.abs().amax(groups.blocks[0].by == ScaleBy::kRow ? 1 : 0);
  const at::Tensor pieces =
      at::zeros(index.group.sizes(), x.options()).scatter_reduce_(0, index.piece, x.abs(), "amax");
  return at::zeros({groups.count}, x.options()).scatter_reduce_(0, index.group, pieces, "amax");
}

// See scale_of() of the kernels. The division is done in float64: a GPU divides a float32 by a constant less exactly.
at::Tensor scale_of_each(const at::Tensor& largest, Bits bits) {
  constexpr int kBelowBfloat16 = 0xFFFF;
  const at::Tensor exact = largest.to(at::kDouble).div_(scale_divisor(bits)).to(at::kFloat);
  const at::Tensor up = exact.view(at::kInt).add(kBelowBfloat16).bitwise_and_(~kBelowBfloat16).view(at::kFloat);
  const at::Tensor normal = up.masked_fill(exact.lt(std::numeric_limits<float>::min()), 0.0);
  return at::where(exact.isfinite(), normal, exact);
}

at::Tensor spread_over(const at::Tensor& scale, const ScaleGroups& groups, const GroupIndex& index) {
  if (!are_of_a_matrix(groups)) return scale.index_select(0, index.group).index_select(0, index.piece);
  return groups.blocks[0].by == ScaleBy::kRow ? scale.unsqueeze(1) : scale;
}

}  // namespace

double scale_divisor(Bits bits) { return bits == Bits::kInt8 ? 127.49 : 7.0; }

bool are_of_a_matrix(const ScaleGroups& groups) {
  return groups.blocks.size() == 1 && groups.blocks[0].stride == groups.blocks[0].width;
}

GroupIndex group_index(const ScaleGroups& groups, at::Device device) {
  const at::Tensor piece = at::empty({groups.elements}, at::kLong);
  std::vector<at::Tensor> group = {at::empty({0}, at::kLong)};
  int64_t first = 0;
  for (const ScaleBlock& block : groups.blocks) {
    const at::Tensor rows = at::arange(block.rows).unsqueeze(1), columns = at::arange(block.width);
    const bool by_row = block.by == ScaleBy::kRow;
    const at::Tensor mine = by_row ? rows : rows.floor_divide(kRoundedRowsPerPiece).mul(block.width).add(columns);
    piece.as_strided({block.rows, block.width}, {block.stride, 1}, block.start).copy_(mine.add(first));
    const int64_t times = by_row ? 1 : (block.rows + kRoundedRowsPerPiece - 1) / kRoundedRowsPerPiece;
    group.push_back((by_row ? at::arange(block.rows) : columns).add(block.first_group).repeat({times}));
    first += group.back().numel();
  }
  return {piece.to(device), at::cat(group).to(device)};
}

Rounded round_with_aten(const at::Tensor& x, Bits bits, const ScaleGroups& groups, const GroupIndex& index) {
  const at::Tensor shaped =
      are_of_a_matrix(groups) ? x.reshape({groups.blocks[0].rows, groups.blocks[0].width}) : x.reshape({-1});
  const at::Tensor scale = scale_of_each(largest_of_groups(shaped, groups, index), bits);
  const at::Tensor spread = spread_over(scale.to(x.scalar_type()), groups, index);
  const at::Tensor divisor = spread.masked_fill(spread.eq(0.0), 1.0);
  // Adding zero makes a zero of -0, which no integer is.
  return {shaped.div(divisor).round_().add_(0.0), scale, spread};
}

}  // namespace afm::nn
