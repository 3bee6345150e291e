#pragma once

// Private: a whole file, mapped read-only.

#include <cstddef>
#include <filesystem>
#include <span>

namespace afm {

class MappedFile {
 public:
  // Throws IoError when `path` is not a regular file that can be read. An empty file has no bytes.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace afm
