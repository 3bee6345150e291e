#pragma once

// Several files as one input: each part is its length, 4 bytes little endian, and its bytes. The last takes what is
// left.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace afm::fuzz {

using PartLength = std::uint32_t;

inline std::vector<std::string> split_parts(std::string_view input, std::size_t count) {
  std::vector<std::string> parts(count);
  for (std::string& part : parts) {
    PartLength length = 0;
    if (input.size() < sizeof length) return parts;
    std::memcpy(&length, input.data(), sizeof length);
    input.remove_prefix(sizeof length);
    part = input.substr(0, length);
    input.remove_prefix(part.size());
  }
  return parts;
}

inline std::string join_parts(std::span<const std::string> parts) {
  std::string joined;
  for (const std::string& part : parts) {
    const auto length = static_cast<PartLength>(part.size());
    joined.append(reinterpret_cast<const char*>(&length), sizeof length).append(part);
  }
  return joined;
}

}  // namespace afm::fuzz
