#include "libafm/core/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <random>
#include <utility>

#include "libafm/core/file_descriptor.h"

namespace afm {
namespace {

std::filesystem::path temporary_name(const std::filesystem::path& path) {
  std::filesystem::path name = path;
  name += fmt::format(".tmp-{}-{:08x}", ::getpid(), std::random_device{}());
  return name;
}

template <typename Call>
auto retry_interrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

// Makes the rename itself durable. A file system that cannot sync a folder says EINVAL: nothing more can be done there.
void sync_folder_of(const std::filesystem::path& path) {
  const auto folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  const auto file = FileDescriptor::open(folder);
  if (retry_interrupted([&] { return ::fsync(file.get()); }) != 0 && errno != EINVAL) fail_io("write", path, errno);
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)), temporary_(temporary_name(path_)) {
  descriptor_ =
      retry_interrupted([&] { return ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); });
  if (descriptor_ < 0) fail_io("write", path_, errno);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto written = retry_interrupted([&] { return ::write(descriptor_, bytes.data(), bytes.size()); });
    if (written < 0) fail_io("write", path_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::write(std::string_view text) { write(std::as_bytes(std::span(text))); }

void AtomicFile::commit() {
  if (retry_interrupted([&] { return ::fsync(descriptor_); }) != 0) fail_io("write", path_, errno);
  // A network file system may tell of a full disk only here.
  if (::close(std::exchange(descriptor_, -1)) != 0) fail_io("write", path_, errno);
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) fail_io("write", path_, errno);
  temporary_.clear();
  sync_folder_of(path_);
}

void write_text_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::string read_text_file(const std::filesystem::path& path) {
  const auto file = FileDescriptor::open(path);
  std::string text;
  std::array<char, 1 << 16> buffer;
  for (;;) {
    const auto count = retry_interrupted([&] { return ::read(file.get(), buffer.data(), buffer.size()); });
    if (count < 0) fail_io("read", path, errno);
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

}  // namespace afm
