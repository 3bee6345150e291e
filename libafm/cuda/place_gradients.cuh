#pragma once

// Private: the gradients that places of a batch leave for their rows.

#include <cuda_bf16.h>

#include "libafm/cuda/row_writer.cuh"
#include "libafm/cuda/shapes.cuh"
#include "libafm/cuda/table.h"

namespace afm::cuda {

// What may be read in vectors.
struct Aligned {
  bool input, sums;
};

inline bool is_aligned(const void* pointer, int values, Element element) {
  const int bytes = element == Element::kFloat ? 4 : 2;
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(values * bytes) == 0;
}

inline Aligned aligned_parts(const Table& table, const RowGradients& task) {
  const bool fours = table.dim % 4 == 0;
  return {fours && task.input_stride % 4 == 0 && is_aligned(task.input, 4, task.element),
          fours && is_aligned(task.sums, 4, Element::kFloat)};
}

// Values of a row as they lie in memory: to convert one is to wait for it.
template <typename T, int kColumns>
class RawValues {
 public:
  __device__ void clear() {
#pragma unroll
    for (uint32_t& word : words_) word = 0;
  }

  // Values [d, d + kColumns) of a row of `dim`, after clear(). REQUIRES: the row aligned to 4 values, `dim` a multiple.
  __device__ void load_vectors(const T* row, int d, int dim) {
#pragma unroll
    for (int c = 0; c < kColumns; c += 4) {
      if (d + c >= dim) continue;
      const auto four = *reinterpret_cast<const Vector<uint32_t, sizeof(T)>*>(row + d + c);
#pragma unroll
      for (int i = 0; i < static_cast<int>(sizeof(T)); ++i) words_[c * sizeof(T) / 4 + i] = four.values[i];
    }
  }

  // The same, one by one, wherever the row lies.
  __device__ void load_each(const T* row, int d, int dim) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (d + c >= dim) continue;
      if constexpr (sizeof(T) == 4) {
        words_[c] = __float_as_uint(row[d + c]);
      } else {
        words_[c / 2] |= static_cast<uint32_t>(__bfloat16_as_ushort(row[d + c])) << (c % 2 * 16);
      }
    }
  }

  __device__ float operator[](int c) const {
    if constexpr (sizeof(T) == 4) return __uint_as_float(words_[c]);
    return __uint_as_float(c % 2 == 0 ? words_[c / 2] << 16 : words_[c / 2] & 0xffff0000U);
  }

 private:
  uint32_t words_[kColumns * sizeof(T) / 4];
};

struct Place {
  uint32_t sample, field;
};

// Columns [d, d + kColumns) of kCount places. load() issues every load before one is waited for, see
// Note [Deterministic rows].
template <typename In, int kColumns, int kCount>
class LoadedPlaces {
 public:
  // place_of(u): the place, which exists.
  template <typename PlaceOf>
  __device__ void load(const Table& table, const RowGradients& task, Aligned aligned, int d, PlaceOf place_of) {
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      scores_[u] = 0;
      sums_[u].clear();
      input_[u].clear();
    }
    if (task.score != nullptr) {
#pragma unroll
      for (int u = 0; u < kCount; ++u) scores_[u] = task.score[place_of(u).sample];
    }
    if (task.sums != nullptr) {
      load_rows(sums_, aligned.sums, d, table.dim,
                [&](int u) { return task.sums + static_cast<int64_t>(place_of(u).sample) * table.dim; });
    }
    if (task.input != nullptr) {  // last: values smaller than a word are put together here
      load_rows(input_, aligned.input, d, table.dim, [&](int u) {
        const Place place = place_of(u);
        return static_cast<const In*>(task.input) + place.sample * task.input_stride +
               place.field * static_cast<uint32_t>(table.dim);
      });
    }
  }

  __device__ Sums<kColumns> gradient(int u) const {
    Sums<kColumns> sums;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) sums.values[c] = fmaf(scores_[u], sums_[u][c], input_[u][c]);
    sums.score = scores_[u];
    return sums;
  }

 private:
  // The choice stands around the loop over places, so that no branch parts their loads.
  template <typename T, typename RowOf>
  static __device__ void load_rows(RawValues<T, kColumns> (&to)[kCount], bool vectors, int d, int dim, RowOf row_of) {
    if (vectors) {
#pragma unroll
      for (int u = 0; u < kCount; ++u) to[u].load_vectors(row_of(u), d, dim);
    } else {
#pragma unroll
      for (int u = 0; u < kCount; ++u) to[u].load_each(row_of(u), d, dim);
    }
  }

  RawValues<In, kColumns> input_[kCount];
  RawValues<float, kColumns> sums_[kCount];
  float scores_[kCount];
};

}  // namespace afm::cuda
