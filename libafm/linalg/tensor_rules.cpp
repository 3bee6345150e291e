#include "libafm/linalg/tensor_rules.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "libafm/core/fail.h"

namespace afm {
namespace {

std::string shape_text(at::IntArrayRef shape) {
  std::vector<std::string> sizes;
  for (const int64_t size : shape) sizes.push_back(size < 0 ? "*" : std::to_string(size));
  return fmt::format("[{}]", fmt::join(sizes, ", "));
}

std::string description(const at::Tensor& tensor) {
  if (!tensor.defined()) return "an undefined tensor";
  return fmt::format("{} {}", c10::toString(tensor.scalar_type()), shape_text(tensor.sizes()));
}

}  // namespace

void require_floats(const char* what, const at::Tensor& tensor, std::initializer_list<int64_t> shape) {
  const auto fits = [](int64_t size, int64_t wanted) { return wanted < 0 || size == wanted; };
  if (tensor.defined() && at::isFloatingType(tensor.scalar_type()) &&
      std::equal(tensor.sizes().begin(), tensor.sizes().end(), shape.begin(), shape.end(), fits)) {
    return;
  }
  fail<std::invalid_argument>("{} must be floating point of shape {}, got {}", what, shape_text(shape),
                              description(tensor));
}

bool all_finite(const at::Tensor& tensor) {
  if (tensor.dim() == 0 || tensor.numel() == 0) return tensor.isfinite().all().item<bool>();
  const int64_t piece = int64_t{1} << (tensor.is_cpu() ? 18 : 23), rows = tensor.size(0);
  const int64_t step = std::max<int64_t>(1, piece / (tensor.numel() / rows));
  at::Tensor finite;
  for (int64_t start = 0; start < rows; start += step) {
    const at::Tensor own = tensor.narrow(0, start, std::min(step, rows - start)).isfinite().all();
    finite = finite.defined() ? finite.logical_and(own) : own;
  }
  return finite.item<bool>();
}

void require_finite(const char* what, const at::Tensor& tensor) {
  if (all_finite(tensor)) return;
  fail<std::invalid_argument>("{} must be finite, got a NaN or an infinity", what);
}

void require_rank(const char* what, int64_t k, int64_t largest) {
  if (k >= 0 && k <= largest) return;
  fail<std::invalid_argument>("{} must be in [0, {}], got {}", what, largest, k);
}

int64_t rows_per_chunk(int64_t columns, at::Device device) {
  constexpr int64_t kCacheBytes = int64_t{8} << 20;
  constexpr int64_t kLargestBytes = int64_t{64} << 20;
  const int64_t row_bytes = columns * static_cast<int64_t>(sizeof(double));
  if (!device.is_cpu()) return std::max<int64_t>(1, kLargestBytes / row_bytes);
  // Merging a batch costs m^2, its scatter B m^2: wide rows need taller chunks than the cache would like.
  const int64_t wanted = std::max(kCacheBytes / row_bytes, 2 * columns);
  return std::max<int64_t>(1, std::min(wanted, kLargestBytes / row_bytes));
}

}  // namespace afm
