#pragma once

// What tests of files share: a folder that removes itself, raw file access, and the sentence of an error.

#include <dirent.h>
#include <ftw.h>
#include <stdlib.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>

namespace afm::testing {

inline int64_t count_files(const std::filesystem::path& path) {
  int64_t count = -2;  // "." and ".."
  DIR* folder = ::opendir(path.c_str());
  while (::readdir(folder) != nullptr) ++count;
  ::closedir(folder);
  return count;
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "afm-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a temporary folder");
    path_ = name;
  }
  ~TemporaryFolder() { ::nftw(path_.c_str(), &remove_entry, /*nopenfd=*/16, FTW_DEPTH | FTW_PHYS); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  int64_t file_count() const { return count_files(path_); }

 private:
  // Note [No directory iterators] LibTorch exports std::filesystem symbols of its own, older libstdc++; iterating over
  // a folder through them crashes with g++ 13. Paths and single-file operations are safe.
  static int remove_entry(const char* path, const struct stat*, int, struct FTW*) { return ::remove(path); }

  std::filesystem::path path_;
};

// A new file each time: ext4 flushes one that is rewritten in place to the disk, which costs fuzz tests seconds.
inline void write_bytes(const std::filesystem::path& path, std::string_view bytes) {
  std::filesystem::remove(path);
  std::ofstream(path, std::ios::binary) << bytes;
}

inline std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The sentence of the Exception that `call` throws; "" when it throws none.
template <typename Exception, typename Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const Exception& error) {
    return error.what();
  }
  return {};
}

}  // namespace afm::testing
