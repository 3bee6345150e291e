#pragma once

// Model files made by hand, without LibTorch: a dense DeepFM and a folded DCN of integers, whose every tensor a test
// may change, take away or misshape before it is written.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "libafm/core/safetensors.h"
#include "libafm/data/schema.h"

namespace afm::serve::testing {

struct OwnedTensor {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};

template <typename Number>
OwnedTensor tensor_of(DType dtype, std::vector<int64_t> shape, const std::vector<Number>& values) {
  const auto* begin = reinterpret_cast<const std::byte*>(values.data());
  return {dtype, std::move(shape), {begin, begin + values.size() * sizeof(Number)}};
}
inline OwnedTensor floats_of(std::vector<int64_t> shape, const std::vector<float>& values) {
  return tensor_of(DType::kF32, std::move(shape), values);
}
std::vector<float> values_of(const OwnedTensor& tensor);

struct ModelParts {
  std::map<std::string, std::string> metadata;
  std::map<std::string, OwnedTensor> tensors;
  void write(const std::filesystem::path& path) const;
};

// Fields user (7 ids), genres (5 ids, 3 slots, may be empty), item (4 ids), and numbers age and price.
Schema click_schema();
inline constexpr int64_t kSlots = 5, kDense = 2, kUserCount = 7;

// embedding_dim 4, hidden [6, 5], batch norm.
ModelParts deepfm_parts(uint32_t seed = 1);
// embedding_dim 4, folded, int8 latents with tiers, hidden [6], int4 first layer.
ModelParts folded_dcn_parts(uint32_t seed = 1);

struct Rows {
  std::vector<int32_t> ids;  // [count, kSlots]
  std::vector<float> dense;  // [count, kDense]
  int64_t count = 0;
};
Rows random_rows(int64_t count, uint32_t seed = 1);

// deepfm_parts by its definition, in float64.
std::vector<double> deepfm_logits(const ModelParts& parts, const Rows& rows);

// The golden rows that a file with these rows and logits has.
void add_golden_rows(ModelParts& parts, const Rows& rows, const std::vector<float>& logits);

}  // namespace afm::serve::testing
