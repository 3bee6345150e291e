#include "libafm/core/atomic_file.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>

#include <fmt/format.h>
#include <catch2/catch_test_macros.hpp>

#include "libafm/core/error.h"
#include "tests/core/temporary_folder.h"

namespace afm {
namespace {

using testing::count_files;
using testing::message_of;
using testing::read_bytes;
using testing::TemporaryFolder;
using testing::write_bytes;

// Files of this process may not grow past `bytes` while this lives: write() then stops short and fails.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    signal_before_ = ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, signal_before_);
  }

 private:
  rlimit before_{};
  void (*signal_before_)(int) = nullptr;
};

// What a write of 1 MB on a full disk of 64 kB says; nothing where this process may not mount one. A child does it in a
// mount namespace of its own, so that the mount goes with it.
std::optional<std::string> message_on_full_disk(const TemporaryFolder& folder) {
  constexpr int kMayNotMount = 3;
  const auto disk = folder / "disk";
  const auto report = folder / "report";
  std::filesystem::create_directory(disk);
  const pid_t child = ::fork();
  if (child == 0) {
    const bool own_namespace = ::unshare(CLONE_NEWNS) == 0 || ::unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0;
    if (!own_namespace || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=64k") != 0) {
      ::_exit(kMayNotMount);
    }
    write_bytes(disk / "model", "old");
    auto message = message_of<IoError>([&] { write_text_file(disk / "model", std::string(1 << 20, 'x')); });
    if (read_bytes(disk / "model") != "old") message += " (the old file is gone)";
    if (count_files(disk) != 1) message += " (a temporary file is left)";
    write_bytes(report, message);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kMayNotMount) return std::nullopt;
  return read_bytes(report);
}

TEST_CASE("a committed file holds what was written in pieces") {
  const TemporaryFolder folder;
  AtomicFile file(folder / "plan.json");
  file.write("one ");
  file.write(std::as_bytes(std::span(std::string_view("two"))));
  CHECK_FALSE(std::filesystem::exists(folder / "plan.json"));
  file.commit();
  CHECK(read_bytes(folder / "plan.json") == "one two");
  CHECK(folder.file_count() == 1);
}

TEST_CASE("a file that is not committed leaves the old one and no temporary file") {
  const TemporaryFolder folder;
  write_text_file(folder / "plan.json", "old");
  {
    AtomicFile file(folder / "plan.json");
    file.write("new");
    CHECK(folder.file_count() == 2);
  }
  CHECK(read_text_file(folder / "plan.json") == "old");
  CHECK(folder.file_count() == 1);
}

TEST_CASE("two writers of one file do not mix") {
  const TemporaryFolder folder;
  AtomicFile first(folder / "plan.json"), second(folder / "plan.json");
  first.write("first");
  second.write("second");
  second.commit();
  CHECK(read_text_file(folder / "plan.json") == "second");
  first.commit();
  CHECK(read_text_file(folder / "plan.json") == "first");
}

TEST_CASE("text files of any size are read as they were written") {
  const TemporaryFolder folder;
  for (const std::size_t size : {0, 1, 65535, 65536, 65537, 300000}) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 31);
    write_text_file(folder / "text", text);
    CHECK(read_text_file(folder / "text") == text);
  }
}

TEST_CASE("a path without a folder is written in the working folder") {
  const TemporaryFolder folder;
  const auto before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  write_text_file("plan.json", "here");
  std::filesystem::current_path(before);
  CHECK(read_bytes(folder / "plan.json") == "here");
}

TEST_CASE("files that cannot be written or read are named with the reason") {
  const TemporaryFolder folder;
  const std::string missing = (folder / "missing" / "plan.json").string();
  CHECK(message_of<IoError>([&] { write_text_file(missing, ""); }) ==
        fmt::format("cannot write '{}': No such file or directory", missing));
  CHECK(message_of<IoError>([&] { read_text_file(missing); }) ==
        fmt::format("cannot read '{}': No such file or directory", missing));
  const std::string folder_name = folder.path().string();
  CHECK(message_of<IoError>([&] { read_text_file(folder_name); }) ==
        fmt::format("cannot read '{}': Is a directory", folder_name));
}

TEST_CASE("a file cannot replace a folder") {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "data");
  CHECK(message_of<IoError>([&] { write_text_file(folder / "data", "text"); }) ==
        fmt::format("cannot write '{}': Is a directory", (folder / "data").string()));
  CHECK(folder.file_count() == 1);
}

TEST_CASE("a write that stops short leaves the old file and no temporary file") {
  const TemporaryFolder folder;
  write_text_file(folder / "model", "old");
  std::string message;
  {
    const FileSizeLimit limit(4096);
    message = message_of<IoError>([&] { write_text_file(folder / "model", std::string(10000, 'x')); });
  }
  CHECK(message == fmt::format("cannot write '{}': File too large", (folder / "model").string()));
  CHECK(read_bytes(folder / "model") == "old");
  CHECK(folder.file_count() == 1);
}

TEST_CASE("a full disk is named and leaves the old file") {
  const TemporaryFolder folder;
  const auto message = message_on_full_disk(folder);
  if (!message) SKIP("this process may not mount a small disk");
  CHECK(*message == fmt::format("cannot write '{}': No space left on device", (folder / "disk" / "model").string()));
}

}  // namespace
}  // namespace afm
