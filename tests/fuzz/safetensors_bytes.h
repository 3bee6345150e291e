#pragma once

// What fuzzers do to the bytes of a safetensors file so that they reach what lies behind its first checks.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "libafm/core/safetensors_format.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace afm::fuzz {

// The header of a file whose length says that it has one.
inline std::optional<std::string_view> header_of(std::string_view file) {
  std::uint64_t length = 0;
  if (file.size() < safetensors::kLengthBytes) return std::nullopt;
  std::memcpy(&length, file.data(), safetensors::kLengthBytes);
  if (length > file.size() - safetensors::kLengthBytes) return std::nullopt;
  return file.substr(safetensors::kLengthBytes, length);
}

// Writes `value` over the text that follows `"key":"` in the header, where there is room for it.
inline void replace_text(std::string& file, std::string_view key, std::string_view value) {
  const auto header = header_of(file);
  if (!header) return;
  const std::string name = "\"" + std::string(key) + "\":\"";
  const auto found = header->find(name);
  if (found == std::string_view::npos || header->size() - found - name.size() < value.size()) return;
  file.replace(safetensors::kLengthBytes + found + name.size(), value.size(), value);
}

// Makes the checksums right again.
inline void seal(std::string& file) {
  const auto header = header_of(file);
  if (!header) return;
  const std::size_t begin = safetensors::kLengthBytes + header->size();
  replace_text(file, safetensors::kChecksumKey,
               safetensors::checksum_text(XXH3_64bits(file.data() + begin, file.size() - begin)));
  if (const auto checksum = safetensors::header_checksum(*header_of(file))) {
    replace_text(file, safetensors::kHeaderChecksumKey, *checksum);
  }
}

// Mostly changes the header and corrects its length, without which few changes would reach what lies behind it.
inline std::size_t mutate_file(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned seed) {
  const auto header = header_of({reinterpret_cast<const char*>(data), size});
  if (!header || seed % 4 == 0) return LLVMFuzzerMutate(data, size, max_size);
  constexpr std::size_t kLengthBytes = safetensors::kLengthBytes;
  const std::vector<std::uint8_t> rest(data + kLengthBytes + header->size(), data + size);
  if (rest.size() + kLengthBytes >= max_size) return size;
  const std::size_t most = max_size - kLengthBytes - rest.size();
  const std::uint64_t length = LLVMFuzzerMutate(data + kLengthBytes, header->size(), most);
  std::memcpy(data, &length, kLengthBytes);
  std::copy(rest.begin(), rest.end(), data + kLengthBytes + length);
  return kLengthBytes + length + rest.size();
}

}  // namespace afm::fuzz
