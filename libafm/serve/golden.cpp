#include <cmath>
#include <cstring>
#include <vector>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/serve/scorer_state.h"

namespace afm::serve {
namespace {

// What another order of sums may change. A wrong byte order, build or file changes far more.
constexpr float kTolerance = 1e-4F;
constexpr int64_t kMaxRows = 1024;  // a few suffice, and opening scores them all

template <typename Number>
std::vector<Number> numbers(const SafetensorsFile& file, const char* name, DType dtype, std::vector<int64_t> shape) {
  const TensorView& view = file.at(name);
  if (view.dtype != dtype || view.shape != shape) {
    fail<FormatError>("its golden rows do not fit its model: '{}' has another type or shape", name);
  }
  std::vector<Number> values(view.bytes.size() / sizeof(Number));
  if (!values.empty()) std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
  return values;
}

int64_t row_count(const SafetensorsFile& file) {
  const TensorView& logits = file.at("golden.logits");
  const int64_t rows = logits.shape.size() == 1 ? logits.shape[0] : -1;
  if (rows < 0 || rows > kMaxRows) fail<FormatError>("its golden rows must be at most {}", kMaxRows);
  return rows;
}

}  // namespace

int64_t check_golden_rows(const ScorerState& state) {
  const SafetensorsFile& file = state.tensors.file();
  if (!file.tensors().contains("golden.logits")) return 0;
  const int64_t rows = row_count(file), slots = state.features.slots, dense_count = state.features.dense;
  const auto expected = numbers<float>(file, "golden.logits", DType::kF32, {rows});
  const auto ids = numbers<int32_t>(file, "golden.ids", DType::kI32, {rows, slots});
  const auto dense =
      dense_count == 0 ? std::vector<float>() : numbers<float>(file, "golden.dense", DType::kF32, {rows, dense_count});
  std::vector<float> logits(expected.size());
  try {
    score_rows(state, {ids.data(), dense.data(), rows}, logits.data());
  } catch (const DataError& error) {
    fail<FormatError>("its golden rows do not fit its model: {}", error.what());
  }
  for (std::size_t r = 0; r < logits.size(); ++r) {
    // Also for what is not a number.
    if (std::abs(logits[r] - expected[r]) <= kTolerance * (1 + std::abs(expected[r]))) continue;
    fail<FormatError>("golden row {} must have the logit {}, this build computes {}", r, expected[r], logits[r]);
  }
  return rows;
}

}  // namespace afm::serve
