#pragma once

// Safetensors files as LibTorch tensors.

#include <filesystem>
#include <map>
#include <string>

#include <ATen/core/Tensor.h>

#include "libafm/core/safetensors.h"

namespace afm {

using TensorMap = std::map<std::string, at::Tensor>;
using Metadata = std::map<std::string, std::string>;

// A tensor over the file's mapping: no copy, read-only by contract, keeps the mapping alive.
// Only a tensor that a foreign writer did not align is copied. Throws FormatError for a name that the file lacks.
at::Tensor view_tensor(const SafetensorsFile& file, const std::string& name);

// Every tensor of the file, copied to the CPU.
TensorMap read_tensors(const SafetensorsFile& file);

// Tensors of any device and layout; they are brought to the CPU and made contiguous. Atomic, with checksum.
void save_tensors(const std::filesystem::path& path, const Metadata& metadata, const TensorMap& tensors);

}  // namespace afm
