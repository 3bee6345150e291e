#pragma once

// Safetensors files without LibTorch: the one binary format of libafm. Python's safetensors package opens each of them.
//
//   auto file = SafetensorsFile::open("model.safetensors");      // memory-mapped, header checked
//   file.verify();                                               // checksums of data and header
//   const TensorView& weight = file.at("head.weight");
//
// A reader trusts nothing: header length and JSON, names, dtypes, shapes, offsets (in order, no holes, no overlap,
// within the file) are checked before a byte is used. What libafm writes carries XXH3 checksums of the data and of the
// header in the metadata.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace afm {

enum class DType { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

std::size_t size_of(DType dtype);       // bytes of one element
std::string_view name_of(DType dtype);  // "F32", as the format spells it

// One tensor of a file or to be written: row-major, not owned.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // empty for a scalar
  std::span<const std::byte> bytes;
};

// An open file. Copies share one mapping, which lives as long as the last copy. Safe to read from many threads.
class SafetensorsFile {
 public:
  // Throws IoError (cannot be opened) or FormatError (not a valid safetensors file: says what is wrong where).
  static SafetensorsFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const;
  const std::map<std::string, std::string>& metadata() const;
  const std::map<std::string, TensorView>& tensors() const;
  // The tensor of that name. Throws FormatError that names the file and the tensor.
  const TensorView& at(const std::string& name) const;
  // The metadata value of that key. Throws FormatError that names the file and the key.
  const std::string& metadata_at(const std::string& key) const;

  bool has_checksum() const;
  // Reads the whole data section once. Throws FormatError when its checksum is missing or does not match, or when the
  // header has one that does not match.
  void verify() const;
  // Keeps the mapping alive while views into it are used.
  std::shared_ptr<const void> keep_alive() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

// Writes to a temporary name beside `path`, syncs, renames: `path` holds the old or the new file, never a part. Adds
// the checksum to the metadata. Throws IoError ("cannot write X: No space left on device"); the temporary file is
// removed.
void write_safetensors(const std::filesystem::path& path, std::map<std::string, std::string> metadata,
                       const std::map<std::string, TensorView>& tensors);

}  // namespace afm
