#pragma once

// Private: the tensors of a model file, taken one by one with the shape that the model asks for.

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "libafm/core/safetensors.h"

namespace afm::serve {

// a * b. Throws FormatError when it does not fit.
int64_t checked_product(int64_t a, int64_t b);

// Floats that lie in the file, or were converted from another precision or brought to an aligned place.
struct FloatTensor {
  std::span<const float> values;
  std::vector<float> owned = {};  // what `values` points at, if not the file
};

class StoredTensors {
 public:
  explicit StoredTensors(SafetensorsFile file) : file_(std::move(file)) {}

  const SafetensorsFile& file() const { return file_; }
  bool has(const std::string& name) const { return file_.tensors().contains(name); }

  // Throw FormatError for a tensor that is missing, of another shape or of another type.
  FloatTensor floats(const std::string& name, std::initializer_list<int64_t> shape);  // F32, F64, F16 or BF16
  std::vector<float> float_vector(const std::string& name, std::initializer_list<int64_t> shape);
  std::span<const std::byte> bytes(const std::string& name, DType dtype, std::initializer_list<int64_t> shape);
  std::vector<float> scales(const std::string& name, int64_t count);  // BF16, each finite and at least 0
  // Counts as taken, and stays in the file after release_copied().
  void keep(const std::string& name) { kept_.insert(name); }
  void ignore(const std::string& name) { taken_.insert(name); }

  // Throws FormatError that lists the tensors that nobody took, golden rows and vocabulary apart.
  void refuse_rest() const;
  // Gives back the memory of all that was copied: only tensors that were kept stay.
  void release_copied() const;

 private:
  const TensorView& take(const std::string& name, std::initializer_list<int64_t> shape);

  SafetensorsFile file_;
  std::set<std::string> taken_, kept_;
};

// One number in bfloat16, as it lies in a file.
float bfloat16_at(const std::byte* bytes);

}  // namespace afm::serve
