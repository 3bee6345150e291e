#pragma once

// Private: how lanes share a row of D values. kLanes lanes hold a row, each kColumns values kLanes apart.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "libafm/cuda/status.h"

namespace afm::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kWholeWarp = 0xffffffffU;  // of the masks of shuffles

template <int lanes, int columns>
struct Shape {
  static constexpr int kLanes = lanes, kColumns = columns;
};

// Calls run(Shape) with the smallest shape that holds `dim` values, which is at most kLargestDim.
template <typename Run>
Status with_shape(int dim, Run run) {
  if (dim <= 4) return run(Shape<4, 1>{});
  if (dim <= 8) return run(Shape<8, 1>{});
  if (dim <= 16) return run(Shape<16, 1>{});
  if (dim <= 32) return run(Shape<32, 1>{});
  if (dim <= 64) return run(Shape<32, 2>{});
  if (dim <= 128) return run(Shape<32, 4>{});
  return run(Shape<32, 8>{});
}

// The same for kernels that read a row in vectors of 4 values: a lane holds kColumns values side by side.
template <typename Run>
Status with_vector_shape(int dim, Run run) {
  if (dim <= 4) return run(Shape<1, 4>{});
  if (dim <= 8) return run(Shape<2, 4>{});
  if (dim <= 16) return run(Shape<4, 4>{});
  if (dim <= 32) return run(Shape<8, 4>{});
  if (dim <= 64) return run(Shape<16, 4>{});
  if (dim <= 128) return run(Shape<32, 4>{});
  return run(Shape<32, 8>{});
}

template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Vector {
  T values[kCount];
};

// Calls run(value of the element type).
template <typename Run>
Status with_element(Element element, Run run) {
  return element == Element::kFloat ? run(float{}) : run(__nv_bfloat16{});
}

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ inline void store(float* to, float value) { *to = value; }
__device__ inline void store(__nv_bfloat16* to, float value) { *to = __float2bfloat16(value); }

inline unsigned blocks_for(int64_t items, int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

}  // namespace afm::cuda
