#pragma once

// Private: a table, its gradients and its optimizer as the kernels of libafm/cuda take them. Only in a build with
// AFM_CUDA.

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "libafm/cuda/lazy_adam.h"
#include "libafm/cuda/table.h"
#include "libafm/nn/device_rows.h"
#include "libafm/nn/embedding_layout.h"

namespace afm::nn {

inline uint32_t* unsigned_of(const at::Tensor& tensor) {
  return reinterpret_cast<uint32_t*>(tensor.mutable_data_ptr<int32_t>());
}

cuda::Table table_of(const EmbeddingLayout& layout, const at::Tensor& table);
cuda::LazyAdam view_of(const DeviceLazyAdam& adam);

}  // namespace afm::nn
