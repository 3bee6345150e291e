#include "libafm/data/check_rows.h"

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"

namespace afm {
namespace {

void check_shape(const at::Tensor& tensor, at::IntArrayRef expected, std::string_view name, std::string_view where) {
  if (tensor.sizes() != expected) {
    fail<DataError>("{}: {} must have shape {}, got {}", where, name, c10::str(expected), c10::str(tensor.sizes()));
  }
}

int64_t first_of(const at::Tensor& mask) { return mask.nonzero().flatten()[0].item<int64_t>(); }

void refuse_id(const Schema& schema, const at::Tensor& wrong, const Batch& rows, std::string_view where,
               int64_t first_row) {
  const auto place = wrong.nonzero()[0];
  const auto row = place[0].item<int64_t>(), slot = place[1].item<int64_t>();
  int64_t end = 0;
  for (const auto& spec : schema.fields) {
    end += spec.slots();
    if (slot >= end) continue;
    fail<DataError>("{}: row {}: field '{}' has id {}, its ids are 0 to {}", where, first_row + row, spec.name,
                    rows.ids[row][slot].item<int64_t>(), spec.cardinality - 1);
  }
}

void check_ids(const Schema& schema, const Batch& rows, std::string_view where, int64_t first_row) {
  std::vector<int32_t> low, high;
  for (const auto& spec : schema.fields) {
    for (int64_t slot = 0; slot < spec.slots(); ++slot) {
      low.push_back(spec.kind == FieldKind::kMulti ? kEmptySlot : 0);
      high.push_back(static_cast<int32_t>(spec.cardinality));
    }
  }
  if (low.empty()) return;
  const auto device = rows.ids.device();
  const auto wrong =
      rows.ids.lt(at::tensor(low, at::kInt).to(device)) | rows.ids.ge(at::tensor(high, at::kInt).to(device));
  if (wrong.any().item<bool>()) refuse_id(schema, wrong, rows, where, first_row);
}

void check_dense(const Schema& schema, const Batch& rows, std::string_view where, int64_t first_row) {
  const auto wrong = at::isfinite(rows.dense).logical_not();
  if (!wrong.any().item<bool>()) return;
  const auto place = wrong.nonzero()[0];
  const auto row = place[0].item<int64_t>();
  auto column = place[1].item<int64_t>();
  const auto value = rows.dense[row][column].item<double>();
  for (const auto& spec : schema.fields) {
    if (!spec.has_ids() && column-- == 0) {
      fail<DataError>("{}: row {}: field '{}' must be finite, got {}", where, first_row + row, spec.name, value);
    }
  }
}

}  // namespace

Batch normal_form(const Schema& schema, const Batch& rows, std::string_view where) {
  const int64_t count = rows.label.defined() ? rows.label.numel() : rows.rows();
  if (!rows.label.defined()) fail<DataError>("{}: rows must have labels", where);
  Batch normal = rows;
  const auto options = rows.label.options().dtype(at::kFloat);
  if (!normal.ids.defined()) normal.ids = at::zeros({count, 0}, options.dtype(at::kInt));
  if (!normal.dense.defined()) normal.dense = at::zeros({count, 0}, options);
  check_shape(normal.label, {count}, "label", where);
  check_shape(normal.ids, {count, schema.slot_count()}, "ids", where);
  check_shape(normal.dense, {count, schema.dense_count()}, "dense", where);
  if (normal.ids.scalar_type() != at::kInt && normal.ids.scalar_type() != at::kLong) {
    fail<DataError>("{}: ids must be int32 or int64, got {}", where, c10::toString(normal.ids.scalar_type()));
  }
  normal.ids = normal.ids.contiguous();
  normal.dense = normal.dense.to(at::kFloat).contiguous();
  normal.label = normal.label.to(at::kFloat).contiguous();
  return normal;
}

void check_values(const Schema& schema, const Batch& rows, std::string_view where, int64_t first_row) {
  check_ids(schema, rows, where, first_row);
  check_dense(schema, rows, where, first_row);
  const auto wrong = rows.label.ne(0) & rows.label.ne(1);
  if (wrong.any().item<bool>()) {
    const auto row = first_of(wrong);
    fail<DataError>("{}: row {}: label must be 0 or 1, got {}", where, first_row + row, rows.label[row].item<double>());
  }
}

Batch checked_rows(const Schema& schema, const Batch& rows, std::string_view where, int64_t first_row) {
  auto checked = normal_form(schema, rows, where);
  check_values(schema, checked, where, first_row);
  checked.ids = checked.ids.to(at::kInt);
  return checked;
}

}  // namespace afm
