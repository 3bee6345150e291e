#pragma once

// Private: what every kernel launcher of this room has in common. No LibTorch, no CUDA headers.

struct CUstream_st;

namespace afm::cuda {

using Stream = CUstream_st*;

// A cudaError_t, 0 when the launch was accepted.
using Status = int;
const char* status_text(Status status);

enum class Element { kFloat, kBfloat16 };

}  // namespace afm::cuda
