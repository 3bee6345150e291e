#pragma once

// Private: an open file that closes itself, and the sentence for what the operating system refuses.

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"

namespace afm {

// action: "read" or "write". IoError: cannot write 'X': No space left on device
[[noreturn]] inline void fail_io(std::string_view action, const std::filesystem::path& path, int error) {
  fail<IoError>("cannot {} '{}': {}", action, path.string(), std::generic_category().message(error));
}

class FileDescriptor {
 public:
  // Opens for reading. Never waits: a pipe without a writer opens too, and is for the caller to refuse.
  static FileDescriptor open(const std::filesystem::path& path) {
    FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (file.get() < 0) fail_io("read", path, errno);
    return file;
  }
  ~FileDescriptor() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;

  int get() const { return descriptor_; }

 private:
  explicit FileDescriptor(int descriptor) : descriptor_(descriptor) {}
  FileDescriptor(FileDescriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

  int descriptor_;
};

}  // namespace afm
