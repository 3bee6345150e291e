#pragma once

// Private: from tensors to the kernels of libafm/cuda. Only in a build with AFM_CUDA.

#include <cstddef>

#include <ATen/ATen.h>
#include <c10/cuda/CUDAStream.h>

#include "libafm/cuda/status.h"

namespace afm::nn {

inline void check_launch(cuda::Status status) {
  TORCH_CHECK(status == 0, "a CUDA kernel failed: ", cuda::status_text(status));
}

inline cuda::Stream stream_of(const at::Tensor& tensor) { return c10::cuda::getCurrentCUDAStream(tensor.get_device()); }

inline cuda::Element element_of(at::ScalarType type) {
  return type == at::kBFloat16 ? cuda::Element::kBfloat16 : cuda::Element::kFloat;
}

inline float* floats_of(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.mutable_data_ptr<float>() : nullptr;
}

inline at::Tensor bytes_like(std::size_t count, const at::Tensor& like) {
  return at::empty({static_cast<int64_t>(count)}, like.options().dtype(at::kByte));
}

}  // namespace afm::nn
