#include "libafm/data/batch.h"

#include <ATen/ATen.h>

#include "libafm/data/batch_rows.h"

namespace afm {

Batch Batch::to(at::Device device) const {
  const auto moved = [&](const at::Tensor& tensor) { return tensor.defined() ? tensor.to(device) : tensor; };
  return {.ids = moved(ids), .dense = moved(dense), .label = moved(label)};
}

Batch slice_rows(const Batch& rows, int64_t begin, int64_t end) {
  return {.ids = rows.ids.slice(0, begin, end),
          .dense = rows.dense.slice(0, begin, end),
          .label = rows.label.slice(0, begin, end)};
}

Batch select_rows(const Batch& rows, const at::Tensor& index) {
  return {.ids = rows.ids.index_select(0, index),
          .dense = rows.dense.index_select(0, index),
          .label = rows.label.index_select(0, index)};
}

Batch join_rows(const std::vector<Batch>& parts) {
  std::vector<at::Tensor> ids, dense, label;
  for (const auto& part : parts) {
    ids.push_back(part.ids);
    dense.push_back(part.dense);
    label.push_back(part.label);
  }
  return {.ids = at::cat(ids), .dense = at::cat(dense), .label = at::cat(label)};
}

}  // namespace afm
