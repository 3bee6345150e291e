#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include <nlohmann/json.hpp>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "libafm/core/atomic_file.h"
#include "libafm/core/fail.h"
#include "libafm/core/safetensors.h"
#include "libafm/core/safetensors_format.h"

namespace afm {
namespace {

using Item = std::pair<std::string, TensorView>;

void check_item(const std::string& name, const TensorView& tensor) {
  if (name == safetensors::kMetadataKey) fail<std::invalid_argument>("a tensor must not be named '{}'", name);
  const auto size = safetensors::byte_size(tensor.dtype, tensor.shape);
  if (!size || *size != tensor.bytes.size()) {
    fail<std::invalid_argument>("tensor '{}' must have the bytes of its shape and dtype, got {}", name,
                                tensor.bytes.size());
  }
}

// The widest elements first, so that each tensor begins at a multiple of its element size.
std::vector<Item> file_order(const std::map<std::string, TensorView>& tensors) {
  std::vector<Item> items(tensors.begin(), tensors.end());
  std::ranges::stable_sort(items, std::ranges::greater{}, [](const Item& item) { return size_of(item.second.dtype); });
  return items;
}

std::string checksum(const std::vector<Item>& items) {
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  for (const auto& [name, tensor] : items) XXH3_64bits_update(&state, tensor.bytes.data(), tensor.bytes.size());
  return safetensors::checksum_text(XXH3_64bits_digest(&state));
}

std::string dump(const nlohmann::json& header) {
  try {
    return header.dump();
  } catch (const nlohmann::json::exception&) {
    fail<std::invalid_argument>("the names and metadata of a safetensors file must be UTF-8");
  }
}

std::string header_text(const std::map<std::string, std::string>& metadata, const std::vector<Item>& items) {
  nlohmann::json header = {{safetensors::kMetadataKey, metadata}};
  std::size_t begin = 0;
  for (const auto& [name, tensor] : items) {
    const std::size_t end = begin + tensor.bytes.size();
    header[name] = {{"dtype", name_of(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
    begin = end;
  }
  std::string text = dump(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > safetensors::kMaxHeaderBytes) {
    fail<std::invalid_argument>("the header of a safetensors file must have at most {} bytes, got {}",
                                safetensors::kMaxHeaderBytes, text.size());
  }
  return text;
}

std::array<std::byte, safetensors::kLengthBytes> little_endian(uint64_t value) {
  std::array<std::byte, safetensors::kLengthBytes> bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(value >> (8 * i));
  return bytes;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::map<std::string, std::string> metadata,
                       const std::map<std::string, TensorView>& tensors) {
  for (const auto& [name, tensor] : tensors) check_item(name, tensor);
  const auto items = file_order(tensors);
  metadata[safetensors::kChecksumKey] = checksum(items);
  metadata[safetensors::kHeaderChecksumKey] = safetensors::kNoChecksum;
  std::string header = header_text(metadata, items);
  safetensors::seal_header(header);

  AtomicFile file(path);
  file.write(little_endian(header.size()));
  file.write(header);
  for (const auto& [name, tensor] : items) file.write(tensor.bytes);
  file.commit();
}

}  // namespace afm
