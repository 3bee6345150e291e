#include "libafm/core/safetensors_format.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/json_text.h"

namespace afm {
namespace {

struct DTypeEntry {
  std::string_view name;
  std::size_t size;
};

// In the order of DType.
constexpr std::array<DTypeEntry, 10> kDTypes = {{{"F64", 8},
                                                 {"F32", 4},
                                                 {"F16", 2},
                                                 {"BF16", 2},
                                                 {"I64", 8},
                                                 {"I32", 4},
                                                 {"I16", 2},
                                                 {"I8", 1},
                                                 {"U8", 1},
                                                 {"BOOL", 1}}};

}  // namespace

std::size_t size_of(DType dtype) { return kDTypes[static_cast<std::size_t>(dtype)].size; }
std::string_view name_of(DType dtype) { return kDTypes[static_cast<std::size_t>(dtype)].name; }

namespace safetensors {
namespace {

using nlohmann::json;

// The header nests an object of objects of arrays; refusing more keeps a hostile header from exhausting memory.
constexpr std::size_t kMaxDepth = 2;

constexpr std::size_t kChecksumDigits = std::string_view(kNoChecksum).size();

class HeaderBuilder : public JsonBuilder {
  void check_depth(std::size_t depth) override {
    if (depth > kMaxDepth) fail<FormatError>("the header nests deeper than a safetensors header does");
  }
  void check_key(const json& object, const std::string& key) override {  // of two equal ones the last would stay
    if (object.contains(key)) fail<FormatError>("the header names '{}' twice", key);
  }
};

json parse_object(std::string_view header) {
  if (header.empty() || header.front() != '{') fail<FormatError>("the header is not a JSON object");
  try {
    return HeaderBuilder().build(header);
  } catch (const json::parse_error& error) {
    fail<FormatError>("the header is not valid JSON at byte {}", error.byte);
  } catch (const json::exception&) {
    fail<FormatError>("the header holds a number that is out of range");
  }
}

std::map<std::string, std::string> parse_metadata(const json& entry) {
  if (!entry.is_object()) fail<FormatError>("the metadata is not an object");
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : entry.items()) {
    if (!value.is_string()) fail<FormatError>("the metadata value of '{}' is not a string", key);
    metadata.emplace(key, value.get<std::string>());
  }
  return metadata;
}

DType parse_dtype(const std::string& tensor, const json& value) {
  if (!value.is_string()) fail<FormatError>("the dtype of tensor '{}' is not a string", tensor);
  const auto& name = value.get_ref<const std::string&>();
  const auto* found = std::ranges::find(kDTypes, name, &DTypeEntry::name);
  if (found == kDTypes.end()) fail<FormatError>("tensor '{}' has the unknown dtype '{}'", tensor, name);
  return static_cast<DType>(found - kDTypes.begin());
}

// A list of integers from 0 to the largest int64_t.
std::vector<int64_t> parse_sizes(const std::string& tensor, std::string_view what, const json& value) {
  const auto is_size = [](const json& item) {
    return item.is_number_unsigned() && item.get<uint64_t>() <= std::numeric_limits<int64_t>::max();
  };
  if (!value.is_array() || !std::all_of(value.begin(), value.end(), is_size)) {
    fail<FormatError>("the {} of tensor '{}' are not a list of non-negative integers", what, tensor);
  }
  return value.get<std::vector<int64_t>>();
}

struct Entry {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  std::size_t begin, end;
};

Entry parse_entry(const std::string& name, const json& value) {
  if (!value.is_object() || value.size() != 3 || !value.contains("dtype") || !value.contains("shape") ||
      !value.contains("data_offsets")) {
    fail<FormatError>("the entry of tensor '{}' is not an object of dtype, shape and data_offsets", name);
  }
  const auto offsets = parse_sizes(name, "data_offsets", value["data_offsets"]);
  if (offsets.size() != 2) fail<FormatError>("the data_offsets of tensor '{}' are not a begin and an end", name);
  Entry entry{name, parse_dtype(name, value["dtype"]), parse_sizes(name, "sizes", value["shape"]),
              static_cast<std::size_t>(offsets[0]), static_cast<std::size_t>(offsets[1])};
  if (entry.shape.size() > kMaxDimensions) {
    fail<FormatError>("tensor '{}' has {} dimensions, at most {} are read", name, entry.shape.size(), kMaxDimensions);
  }
  return entry;
}

void check_extent(const Entry& entry, std::size_t expected_begin, std::size_t data_size) {
  if (entry.begin > entry.end || entry.end > data_size) {
    fail<FormatError>("tensor '{}' lies at bytes {} to {} of a data section of {} bytes", entry.name, entry.begin,
                      entry.end, data_size);
  }
  if (entry.begin != expected_begin) {
    fail<FormatError>("tensor '{}' begins at byte {} of the data, expected {}: there is {}", entry.name, entry.begin,
                      expected_begin, entry.begin > expected_begin ? "a hole" : "an overlap");
  }
  const auto size = byte_size(entry.dtype, entry.shape);
  if (!size) fail<FormatError>("the shape of tensor '{}' overflows", entry.name);
  if (*size != entry.end - entry.begin) {
    fail<FormatError>("tensor '{}' has {} bytes, its shape and dtype need {}", entry.name, entry.end - entry.begin,
                      *size);
  }
}

}  // namespace

std::optional<std::size_t> byte_size(DType dtype, const std::vector<int64_t>& shape) {
  auto product = static_cast<int64_t>(size_of(dtype));
  bool empty = false;
  for (const int64_t size : shape) {
    empty = empty || size == 0;
    if (size < 0 || __builtin_mul_overflow(product, std::max<int64_t>(size, 1), &product)) return std::nullopt;
  }
  return empty ? 0 : static_cast<std::size_t>(product);
}

std::string checksum_text(uint64_t hash) { return fmt::format("{:016x}", hash); }

// Quotes within a string are escaped, so the text of the key is found nowhere else.
std::optional<std::size_t> header_digits(std::string_view header) {
  const std::string key = fmt::format(R"("{}":")", kHeaderChecksumKey);
  const auto found = header.find(key);
  const std::size_t first = found + key.size();
  if (found == std::string_view::npos || header.size() - first < kChecksumDigits) return std::nullopt;
  return first;
}

std::optional<std::string> header_checksum(std::string_view header) {
  const auto digits = header_digits(header);
  if (!digits) return std::nullopt;
  std::string text(header);
  text.replace(*digits, kChecksumDigits, kNoChecksum);
  return checksum_text(XXH3_64bits(text.data(), text.size()));
}

void seal_header(std::string& header) {
  const std::string checksum = header_checksum(header).value();
  header.replace(header_digits(header).value(), kChecksumDigits, checksum);
}

Contents parse_header(std::string_view header, std::span<const std::byte> data) {
  const json object = parse_object(header);
  Contents contents;
  std::vector<Entry> entries;
  for (const auto& [name, value] : object.items()) {
    if (name == kMetadataKey) {
      contents.metadata = parse_metadata(value);
    } else {
      entries.push_back(parse_entry(name, value));
    }
  }
  std::ranges::sort(entries, {}, [](const Entry& entry) { return std::pair(entry.begin, entry.end); });
  std::size_t position = 0;
  for (auto& entry : entries) {
    check_extent(entry, position, data.size());
    position = entry.end;
    contents.tensors[entry.name] = {entry.dtype, std::move(entry.shape),
                                    data.subspan(entry.begin, entry.end - entry.begin)};
  }
  if (position != data.size()) {
    fail<FormatError>("the tensors end at byte {} of a data section of {} bytes", position, data.size());
  }
  return contents;
}

}  // namespace safetensors
}  // namespace afm
