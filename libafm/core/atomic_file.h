#pragma once

// Files that are whole or absent: written to a temporary name in the same folder, synced, renamed.

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace afm {

// Writes in pieces; nothing is visible below `path` until commit(). Without commit() the destructor removes the
// temporary file. Every failure is an IoError that names the file and the reason.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
};

void write_text_file(const std::filesystem::path& path, std::string_view text);
// Throws IoError when the file cannot be read.
std::string read_text_file(const std::filesystem::path& path);

}  // namespace afm
