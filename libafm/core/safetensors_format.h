#pragma once

// Private: the header of a safetensors file, shared by the reader and the writer. A file is
//   8 bytes: length of the header, little endian | the header: a JSON object | the data: tensors, end to end

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "libafm/core/safetensors.h"

namespace afm::safetensors {

inline constexpr std::size_t kLengthBytes = 8;
inline constexpr std::size_t kMaxHeaderBytes = 100'000'000;  // as in the reference implementation
inline constexpr std::size_t kMaxDimensions = 64;            // as in LibTorch
inline constexpr const char* kMetadataKey = "__metadata__";
inline constexpr const char* kChecksumKey = "afm.xxh3";               // of the data
inline constexpr const char* kHeaderChecksumKey = "afm.xxh3.header";  // of the header, with zeros for these digits

struct Contents {
  std::map<std::string, std::string> metadata;
  std::map<std::string, TensorView> tensors;  // views into `data`
};

// Checks everything about the file but its checksum. Throws FormatError that says what is wrong, without the file's
// name; the caller knows it.
Contents parse_header(std::string_view header, std::span<const std::byte> data);

// Bytes of a tensor of that shape, or nothing when they do not fit an int64_t. Sizes of 0 do not hide an overflow of
// the others, because strides overflow too.
std::optional<std::size_t> byte_size(DType dtype, const std::vector<int64_t>& shape);

std::string checksum_text(uint64_t hash);  // 16 hexadecimal digits
inline constexpr const char* kNoChecksum = "0000000000000000";

// The checksum of a header as libafm writes it, kHeaderChecksumKey included; the digits of that key are taken as zeros.
// Nothing when the key is not there.
std::optional<std::string> header_checksum(std::string_view header);
// Puts that checksum in its place. REQUIRES: the header has the key, with kNoChecksum.
void seal_header(std::string& header);

}  // namespace afm::safetensors
