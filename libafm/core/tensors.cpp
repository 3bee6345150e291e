#include "libafm/core/tensors.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"

namespace afm {
namespace {

// In the order of DType.
constexpr std::array<at::ScalarType, 10> kScalarTypes = {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong,
                                                         at::kInt,    at::kShort, at::kChar, at::kByte,     at::kBool};

at::ScalarType scalar_type_of(DType dtype) { return kScalarTypes[static_cast<std::size_t>(dtype)]; }

DType dtype_of(const std::string& name, const at::Tensor& tensor) {
  const auto* found = std::ranges::find(kScalarTypes, tensor.scalar_type());
  if (found == kScalarTypes.end()) {
    fail<std::invalid_argument>("tensor '{}' must have a dtype that a file can hold, got {}", name,
                                at::toString(tensor.scalar_type()));
  }
  return static_cast<DType>(found - kScalarTypes.begin());
}

at::Tensor plain(const std::string& name, const at::Tensor& tensor) {
  if (!tensor.defined()) fail<std::invalid_argument>("tensor '{}' must be defined", name);
  const at::Tensor dense = tensor.layout() == at::kStrided ? tensor.detach() : tensor.detach().to_dense();
  return dense.cpu().resolve_neg().contiguous();
}

bool is_aligned(const TensorView& view) {
  return reinterpret_cast<std::uintptr_t>(view.bytes.data()) % size_of(view.dtype) == 0;
}

// Any byte but 0 and 1 in a C++ bool is undefined behaviour.
void check_bools(const SafetensorsFile& file, const std::string& name, const TensorView& view) {
  if (view.dtype != DType::kBool) return;
  if (std::ranges::any_of(view.bytes, [](std::byte byte) { return byte > std::byte{1}; })) {
    fail<FormatError>("tensor '{}' of '{}' has a boolean that is neither 0 nor 1", name, file.path().string());
  }
}

}  // namespace

at::Tensor view_tensor(const SafetensorsFile& file, const std::string& name) {
  const TensorView& view = file.at(name);
  check_bools(file, name, view);
  if (!is_aligned(view)) {
    at::Tensor copy = at::empty(view.shape, scalar_type_of(view.dtype));
    std::memcpy(copy.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
    return copy;
  }
  const auto keep_mapping = [mapping = file.keep_alive()](void*) {};
  return at::from_blob(const_cast<std::byte*>(view.bytes.data()), view.shape, keep_mapping,
                       at::TensorOptions(scalar_type_of(view.dtype)));
}

TensorMap read_tensors(const SafetensorsFile& file) {
  TensorMap tensors;
  for (const auto& [name, view] : file.tensors()) tensors[name] = view_tensor(file, name).clone();
  return tensors;
}

void save_tensors(const std::filesystem::path& path, const Metadata& metadata, const TensorMap& tensors) {
  TensorMap owners;
  std::map<std::string, TensorView> views;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor& owner = owners[name] = plain(name, tensor);
    views[name] = {dtype_of(name, owner),
                   owner.sizes().vec(),
                   {static_cast<const std::byte*>(owner.const_data_ptr()), owner.nbytes()}};
  }
  write_safetensors(path, metadata, views);
}

}  // namespace afm
