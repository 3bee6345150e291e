#include "libafm/core/safetensors.h"

#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/mapped_file.h"
#include "libafm/core/safetensors_format.h"

namespace afm {
namespace {

uint64_t read_header_length(std::span<const std::byte> bytes) {
  if (bytes.size() < safetensors::kLengthBytes) {
    fail<FormatError>("it has {} bytes, too few for the length of a header", bytes.size());
  }
  uint64_t length = 0;
  for (std::size_t i = 0; i < safetensors::kLengthBytes; ++i) length |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  if (length > safetensors::kMaxHeaderBytes) {
    fail<FormatError>("its header would have {} bytes, at most {} are read", length, safetensors::kMaxHeaderBytes);
  }
  const std::size_t present = bytes.size() - safetensors::kLengthBytes;
  if (length > present) fail<FormatError>("its header should have {} bytes, {} are there", length, present);
  return length;
}

}  // namespace

struct SafetensorsFile::State {
  explicit State(const std::filesystem::path& file_path) : path(file_path), file(file_path) {
    try {
      const std::size_t length = read_header_length(file.bytes());
      const auto bytes = file.bytes().subspan(safetensors::kLengthBytes, length);
      header = {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
      data = file.bytes().subspan(safetensors::kLengthBytes + length);
      contents = safetensors::parse_header(header, data);
    } catch (const FormatError& error) {
      fail<FormatError>("'{}' is not a valid safetensors file: {}", path.string(), error.what());
    }
  }

  std::filesystem::path path;
  MappedFile file;
  std::string_view header;
  std::span<const std::byte> data;
  safetensors::Contents contents;
};

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile file;
  file.state_ = std::make_shared<const State>(path);
  return file;
}

const std::filesystem::path& SafetensorsFile::path() const { return state_->path; }

const std::map<std::string, std::string>& SafetensorsFile::metadata() const { return state_->contents.metadata; }

const std::map<std::string, TensorView>& SafetensorsFile::tensors() const { return state_->contents.tensors; }

const TensorView& SafetensorsFile::at(const std::string& name) const {
  const auto found = tensors().find(name);
  if (found == tensors().end()) fail<FormatError>("'{}' has no tensor '{}'", path().string(), name);
  return found->second;
}

const std::string& SafetensorsFile::metadata_at(const std::string& key) const {
  const auto found = metadata().find(key);
  if (found == metadata().end()) fail<FormatError>("'{}' has no metadata '{}'", path().string(), key);
  return found->second;
}

bool SafetensorsFile::has_checksum() const { return metadata().contains(safetensors::kChecksumKey); }

void SafetensorsFile::verify() const {
  const std::string& expected = metadata_at(safetensors::kChecksumKey);
  const auto actual = safetensors::checksum_text(XXH3_64bits(state_->data.data(), state_->data.size()));
  if (actual != expected) {
    fail<FormatError>("'{}' is damaged: the checksum of its data is {}, its header says {}", path().string(), actual,
                      expected);
  }
  // Files of the first versions have none.
  const auto sealed = metadata().find(safetensors::kHeaderChecksumKey);
  if (sealed == metadata().end()) return;
  if (safetensors::header_checksum(state_->header) != sealed->second) {
    fail<FormatError>("'{}' is damaged: its header is not the one that was written", path().string());
  }
}

std::shared_ptr<const void> SafetensorsFile::keep_alive() const { return state_; }

}  // namespace afm
