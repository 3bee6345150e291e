#include "libafm/serve/stored_tensors.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/options_json.h"

namespace afm::serve {
namespace {

std::string text_of(std::span<const int64_t> shape) {
  std::vector<std::string> sizes;
  for (const int64_t size : shape) sizes.push_back(std::to_string(size));
  return "[" + detail::join(sizes, ", ") + "]";
}

template <typename Number>
Number number_at(const std::byte* bytes) {
  Number number;
  std::memcpy(&number, bytes, sizeof(Number));
  return number;
}

float half_at(const std::byte* bytes) {
  const auto bits = number_at<uint16_t>(bytes);
  const uint32_t sign = (bits & 0x8000U) << 16, exponent = (bits >> 10) & 31U, fraction = bits & 1023U;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24
    const float magnitude = std::ldexp(static_cast<float>(fraction), -24);
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t widened = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | widened << 23 | fraction << 13);
}

bool is_aligned(const std::byte* bytes) { return reinterpret_cast<std::uintptr_t>(bytes) % alignof(float) == 0; }

std::vector<float> converted(const std::string& name, const TensorView& view) {
  const std::size_t step = size_of(view.dtype), count = view.bytes.size() / step;
  const auto convert = [&](auto read) {
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = static_cast<float>(read(view.bytes.data() + i * step));
    return values;
  };
  switch (view.dtype) {
    case DType::kF32:
      return convert(number_at<float>);
    case DType::kF64:
      return convert(number_at<double>);
    case DType::kF16:
      return convert(half_at);
    case DType::kBF16:
      return convert(bfloat16_at);
    default:
      fail<FormatError>("tensor '{}' must be of floats, got {}", name, name_of(view.dtype));
  }
}

bool is_companion(const std::string& name) { return name.starts_with("golden.") || name.starts_with("vocabulary."); }

}  // namespace

int64_t checked_product(int64_t a, int64_t b) {
  int64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) fail<FormatError>("a size overflows: {} times {}", a, b);
  return product;
}

float bfloat16_at(const std::byte* bytes) {
  return std::bit_cast<float>(static_cast<uint32_t>(number_at<uint16_t>(bytes)) << 16);
}

const TensorView& StoredTensors::take(const std::string& name, std::initializer_list<int64_t> shape) {
  const TensorView& view = file_.at(name);
  if (!std::ranges::equal(view.shape, shape)) {
    fail<FormatError>("tensor '{}' must have the shape {}, got {}", name, text_of(shape), text_of(view.shape));
  }
  taken_.insert(name);
  return view;
}

FloatTensor StoredTensors::floats(const std::string& name, std::initializer_list<int64_t> shape) {
  const TensorView& view = take(name, shape);
  FloatTensor tensor;
  if (view.dtype == DType::kF32 && is_aligned(view.bytes.data())) {
    tensor.values = {reinterpret_cast<const float*>(view.bytes.data()), view.bytes.size() / sizeof(float)};
  } else {
    tensor.owned = converted(name, view);
    tensor.values = tensor.owned;
  }
  return tensor;
}

std::vector<float> StoredTensors::float_vector(const std::string& name, std::initializer_list<int64_t> shape) {
  return converted(name, take(name, shape));
}

std::span<const std::byte> StoredTensors::bytes(const std::string& name, DType dtype,
                                                std::initializer_list<int64_t> shape) {
  const TensorView& view = take(name, shape);
  if (view.dtype != dtype) {
    fail<FormatError>("tensor '{}' must be {}, got {}", name, name_of(dtype), name_of(view.dtype));
  }
  return view.bytes;
}

std::vector<float> StoredTensors::scales(const std::string& name, int64_t count) {
  const auto stored = bytes(name, DType::kBF16, {count});
  std::vector<float> scales(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < scales.size(); ++i) scales[i] = bfloat16_at(stored.data() + 2 * i);
  if (std::ranges::any_of(scales, [](float scale) { return scale < 0; })) {
    fail<FormatError>("tensor '{}' must have scales of at least 0", name);
  }
  return scales;
}

void StoredTensors::refuse_rest() const {
  std::vector<std::string> surplus;
  for (const auto& [name, view] : file_.tensors()) {
    if (!taken_.contains(name) && !is_companion(name)) surplus.push_back(name);
  }
  if (!surplus.empty()) fail<FormatError>("its model has no tensors named {}", detail::join(surplus, ", "));
}

void StoredTensors::release_copied() const {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  for (const auto& [name, view] : file_.tensors()) {
    if (kept_.contains(name)) continue;
    // Only whole pages: a neighbour may own the rest. Advice: nothing is lost where it is not taken.
    const auto begin = (reinterpret_cast<std::uintptr_t>(view.bytes.data()) + page - 1) / page * page;
    const auto end = reinterpret_cast<std::uintptr_t>(view.bytes.data() + view.bytes.size()) / page * page;
    if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
}

}  // namespace afm::serve
