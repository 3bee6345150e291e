#include "libafm/serve/kernel_tables.h"

#define AFM_INLINE inline __attribute__((always_inline))
#define AFM_UNROLL _Pragma("GCC unroll 16")  // a sum that is reached by an index lives in memory

namespace afm::serve {
namespace {

// Four registers of four floats: what every processor has, SSE2 and NEON among them.
using Quad = float __attribute__((vector_size(16)));
struct Lanes {
  Quad part[4];
};
struct Codes {
  int32_t word[16];
};

constexpr int kMaxPanels = 1, kSums = 1;
using FullTiles = Heights<3, 2, 1>;
using LastTiles = FullTiles;
using FewTiles = Heights<1>;

AFM_INLINE Lanes zero() { return {}; }
AFM_INLINE Lanes broadcast(const float* x) {
  const Quad quad = {*x, *x, *x, *x};
  return {{quad, quad, quad, quad}};
}
AFM_INLINE Lanes load(const float* from) {
  Lanes lanes;  // by parts, which then stay in registers; rows of a table have any alignment
  AFM_UNROLL for (int q = 0; q < 4; ++q) __builtin_memcpy(&lanes.part[q], from + 4 * q, sizeof(Quad));
  return lanes;
}
AFM_INLINE void store(float* to, const Lanes& lanes) {
  AFM_UNROLL for (int q = 0; q < 4; ++q) __builtin_memcpy(to + 4 * q, &lanes.part[q], sizeof(Quad));
}
AFM_INLINE Lanes load_first(const float* from, int64_t count) {
  if (count >= 16) return load(from);
  float lanes[16] = {};
  if (count > 0) __builtin_memcpy(lanes, from, sizeof(float) * static_cast<std::size_t>(count));
  return load(lanes);
}
AFM_INLINE void store_first(float* to, int64_t count, const Lanes& lanes) {
  if (count >= 16) return store(to, lanes);
  float all[16];
  store(all, lanes);
  for (int64_t i = 0; i < count; ++i) to[i] = all[i];
}
AFM_INLINE Lanes add(const Lanes& a, const Lanes& b) {
  return {{a.part[0] + b.part[0], a.part[1] + b.part[1], a.part[2] + b.part[2], a.part[3] + b.part[3]}};
}
AFM_INLINE Lanes subtract(const Lanes& a, const Lanes& b) {
  return {{a.part[0] - b.part[0], a.part[1] - b.part[1], a.part[2] - b.part[2], a.part[3] - b.part[3]}};
}
AFM_INLINE Lanes mul(const Lanes& a, const Lanes& b) {
  return {{a.part[0] * b.part[0], a.part[1] * b.part[1], a.part[2] * b.part[2], a.part[3] * b.part[3]}};
}
AFM_INLINE Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) { return add(mul(a, b), c); }
AFM_INLINE Lanes relu(const Lanes& a) {
  Lanes lanes;
  AFM_UNROLL for (int q = 0; q < 4; ++q) lanes.part[q] = a.part[q] < 0 ? Quad{} : a.part[q];
  return lanes;
}
AFM_INLINE float sum(const Lanes& a) {
  const Quad quad = (a.part[0] + a.part[1]) + (a.part[2] + a.part[3]);
  return (quad[0] + quad[1]) + (quad[2] + quad[3]);
}
AFM_INLINE Codes load_codes(const char* from) {
  Codes codes;
  __builtin_memcpy(&codes, from, sizeof codes);
  return codes;
}
template <int Bit, int Width>
AFM_INLINE Lanes integer_at(const Codes& codes) {
  float lanes[16];
  AFM_UNROLL for (int i = 0; i < 16; ++i) {
    const auto top = static_cast<int32_t>(static_cast<uint32_t>(codes.word[i]) << (32 - Width - Bit));
    lanes[i] = static_cast<float>(top >> (32 - Width));
  }
  return load(lanes);
}
template <int Bit>
AFM_INLINE Lanes int8_at(const Codes& codes) {
  return integer_at<Bit, 8>(codes);
}
template <int Bit>
AFM_INLINE Lanes int4_at(const Codes& codes) {
  return integer_at<Bit, 4>(codes);
}

#include "libafm/serve/kernels_integers.inl"
#include "libafm/serve/kernels_linear.inl"
#include "libafm/serve/kernels_rows.inl"

// As in kernels_avx2.cpp.
int64_t compute_groups(const PackedMatrix&, const LinearCall&, const int32_t*, int64_t) { return 0; }

}  // namespace

const Kernels& kernels_portable() { return kTable; }

}  // namespace afm::serve
