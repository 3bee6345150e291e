// What a reader must survive: headers that lie, files that end early, bytes that flipped.

#include <sys/stat.h>

#include <cstring>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include <fmt/format.h>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/core/error.h"
#include "libafm/core/safetensors.h"
#include "tests/core/temporary_folder.h"

namespace afm {
namespace {

using testing::message_of;
using testing::read_bytes;
using testing::TemporaryFolder;
using testing::write_bytes;

std::string little_endian(uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
  return bytes;
}

uint64_t header_length(const std::string& file) {
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | static_cast<unsigned char>(file[static_cast<std::size_t>(i)]);
  return length;
}

std::string file_of(const std::string& header, std::size_t data_size) {
  return little_endian(header.size()) + header + std::string(data_size, 'x');
}

// What is wrong with a file of these bytes, without its name; "" when it opens.
std::string refusal(const std::string& bytes) {
  const TemporaryFolder folder;
  write_bytes(folder / "t", bytes);
  const auto message = message_of<FormatError>([&] { SafetensorsFile::open(folder / "t"); });
  const std::string prefix = fmt::format("'{}' is not a valid safetensors file: ", (folder / "t").string());
  return message.starts_with(prefix) ? message.substr(prefix.size()) : message;
}

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return fmt::format(R"({{"dtype":"{}","shape":{},"data_offsets":{}}})", dtype, shape, offsets);
}

std::string one(const std::string& entry_text) { return fmt::format(R"({{"a":{}}})", entry_text); }

std::string two(const std::string& a, const std::string& b) { return fmt::format(R"({{"a":{},"b":{}}})", a, b); }

// A small valid file with a checksum.
std::string valid_file(const TemporaryFolder& folder) {
  std::mt19937 random(7);
  std::vector<std::byte> bytes(96);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  const std::span<const std::byte> all(bytes);
  write_safetensors(folder / "valid", {{"kind", "test"}, {"options", R"({"hidden": [4, 4]})"}},
                    {{"weight", {DType::kF32, {4, 3}, all.subspan(0, 48)}},
                     {"bias", {DType::kF64, {3}, all.subspan(48, 24)}},
                     {"empty", {DType::kI16, {0, 5}, {}}},
                     {"ids", {DType::kU8, {2, 3, 4}, all.subspan(72, 24)}}});
  return read_bytes(folder / "valid");
}

// True when the file opens: then its tensors fill the data section exactly (no overlap, so the sum of sizes says it).
// False when it is refused with FormatError; any other exception ends the test.
bool opens_in_bounds(const std::filesystem::path& path, const std::string& bytes) {
  write_bytes(path, bytes);
  try {
    const auto file = SafetensorsFile::open(path);
    const std::size_t data_size = bytes.size() - 8 - header_length(bytes);
    const std::byte* begin = nullptr;
    std::size_t total = 0;
    for (const auto& [name, view] : file.tensors()) {
      std::size_t needed = size_of(view.dtype);
      for (const auto size : view.shape) needed *= static_cast<std::size_t>(size);
      REQUIRE(needed == view.bytes.size());
      if (begin == nullptr || view.bytes.data() < begin) begin = view.bytes.data();
      total += view.bytes.size();
    }
    REQUIRE(total == data_size);
    if (begin != nullptr) REQUIRE(std::memcmp(begin, bytes.data() + bytes.size() - data_size, data_size) == 0);
    return true;
  } catch (const FormatError&) {
    return false;
  }
}

TEST_CASE("a valid file of the same shape as the refused ones opens") {
  CHECK(refusal(file_of(one(entry("F32", "[2]", "[0,8]")), 8)).empty());
  CHECK(refusal(file_of(two(entry("F32", "[2]", "[0,8]"), entry("U8", "[]", "[8,9]")), 9)).empty());
  CHECK(refusal(file_of("{}   ", 0)).empty());
  CHECK(refusal(file_of(R"({"__metadata__":{"k":"v"}})", 0)).empty());
}

TEST_CASE("files without a whole header are refused") {
  CHECK(refusal("") == "it has 0 bytes, too few for the length of a header");
  CHECK(refusal("1234567") == "it has 7 bytes, too few for the length of a header");
  CHECK(refusal(little_endian(10) + "{}") == "its header should have 10 bytes, 2 are there");
  CHECK(refusal(little_endian(0)) == "the header is not a JSON object");
  CHECK(refusal(little_endian(100'000'001) + "{}") ==
        "its header would have 100000001 bytes, at most 100000000 are read");
  CHECK(refusal(little_endian(~uint64_t{0}) + "{}") ==
        "its header would have 18446744073709551615 bytes, at most 100000000 are read");
}

TEST_CASE("headers that are not the JSON of a safetensors file are refused") {
  const auto [header, sentence] = GENERATE(table<std::string, std::string>(
      {{"[]", "the header is not a JSON object"},
       {" {}", "the header is not a JSON object"},
       {"{\"a\"", "the header is not valid JSON at byte 5"},
       {"{} {}", "the header is not valid JSON at byte 4"},
       {"{\"\xff\":1}", "the header is not valid JSON at byte 3"},
       {R"({"a":1e999})", "the header holds a number that is out of range"},
       {R"({"a":[[[1]]]})", "the header nests deeper than a safetensors header does"},
       {R"({"__metadata__":[]})", "the metadata is not an object"},
       {R"({"__metadata__":{"k":1}})", "the metadata value of 'k' is not a string"},
       {R"({"__metadata__":{"k":"1","k":"2"}})", "the header names 'k' twice"},
       {R"({"__metadata__":{},"__metadata__":{}})", "the header names '__metadata__' twice"}}));
  CHECK(refusal(file_of(header, 0)) == sentence);
}

TEST_CASE("entries that are not a dtype, a shape and offsets are refused") {
  const auto [entry_text, sentence] = GENERATE(table<std::string, std::string>(
      {{"1", "the entry of tensor 'a' is not an object of dtype, shape and data_offsets"},
       {R"({"dtype":"U8","shape":[8]})", "the entry of tensor 'a' is not an object of dtype, shape and data_offsets"},
       {R"({"dtype":"U8","dtype":"I8","shape":[8],"data_offsets":[0,8]})", "the header names 'dtype' twice"},
       {R"({"dtype":8,"shape":[8],"data_offsets":[0,8]})", "the dtype of tensor 'a' is not a string"},
       {entry("F4", "[8]", "[0,8]"), "tensor 'a' has the unknown dtype 'F4'"},
       {entry("U8", "8", "[0,8]"), "the sizes of tensor 'a' are not a list of non-negative integers"},
       {entry("U8", "[-8]", "[0,8]"), "the sizes of tensor 'a' are not a list of non-negative integers"},
       {entry("U8", "[8.0]", "[0,8]"), "the sizes of tensor 'a' are not a list of non-negative integers"},
       {entry("U8", "[9223372036854775808]", "[0,8]"),
        "the sizes of tensor 'a' are not a list of non-negative integers"},
       {entry("U8", "[8]", "[0,-8]"), "the data_offsets of tensor 'a' are not a list of non-negative integers"},
       {entry("U8", "[8]", "[0,4,8]"), "the data_offsets of tensor 'a' are not a begin and an end"}}));
  CHECK(refusal(file_of(one(entry_text), 8)) == sentence);
}

TEST_CASE("a tensor of more dimensions than LibTorch has is refused") {
  std::string shape = "[1";
  for (int i = 1; i < 65; ++i) shape += ",1";
  CHECK(refusal(file_of(one(entry("U8", shape + "]", "[0,1]")), 1)) ==
        "tensor 'a' has 65 dimensions, at most 64 are read");
}

TEST_CASE("tensors that do not tile the data section are refused") {
  const std::string first = entry("U8", "[4]", "[0,4]");
  const auto [header, sentence] = GENERATE_COPY(table<std::string, std::string>(
      {{one(entry("U8", "[9]", "[0,9]")), "tensor 'a' lies at bytes 0 to 9 of a data section of 8 bytes"},
       {one(entry("U8", "[4]", "[8,4]")), "tensor 'a' lies at bytes 8 to 4 of a data section of 8 bytes"},
       {one(entry("U8", "[4]", "[4,8]")), "tensor 'a' begins at byte 4 of the data, expected 0: there is a hole"},
       {one(first), "the tensors end at byte 4 of a data section of 8 bytes"},
       {"{}", "the tensors end at byte 0 of a data section of 8 bytes"},
       {two(first, entry("U8", "[3]", "[5,8]")),
        "tensor 'b' begins at byte 5 of the data, expected 4: there is a hole"},
       {two(first, entry("U8", "[5]", "[3,8]")),
        "tensor 'b' begins at byte 3 of the data, expected 4: there is an overlap"},
       {two(first, first), "tensor 'b' begins at byte 0 of the data, expected 4: there is an overlap"},
       {two(first, entry("U8", "[5]", "[4,8]")), "tensor 'b' has 4 bytes, its shape and dtype need 5"},
       {two(first, entry("U8", "[0]", "[4,8]")), "tensor 'b' has 4 bytes, its shape and dtype need 0"},
       {fmt::format(R"({{"a":{0},"a":{0}}})", first), "the header names 'a' twice"}}));
  CHECK(refusal(file_of(header, 8)) == sentence);
}

TEST_CASE("shapes whose product overflows are refused, hidden by a zero or not") {
  // 2^32 squared wraps to 0; 2^61 elements of 8 bytes do not fit either.
  const auto* shape = GENERATE("[4294967296,4294967296]", "[0,4294967296,4294967296]", "[4294967296,4294967296,0]",
                               "[2305843009213693952]");
  CHECK(refusal(file_of(one(entry("F64", shape, "[0,0]")), 0)) == "the shape of tensor 'a' overflows");
}

TEST_CASE("what is not a regular file is an IoError") {
  const TemporaryFolder folder;
  const auto message = [](const std::filesystem::path& path) {
    return message_of<IoError>([&] { SafetensorsFile::open(path); });
  };
  CHECK(message(folder / "none") ==
        fmt::format("cannot read '{}': No such file or directory", (folder / "none").string()));
  CHECK(message(folder.path()) == fmt::format("cannot read '{}': Is a directory", folder.path().string()));
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK(message(folder / "pipe") == fmt::format("cannot read '{}': not a regular file", (folder / "pipe").string()));
}

TEST_CASE("a file cut anywhere is refused, and so is one with a byte too many") {
  const TemporaryFolder folder;
  const std::string valid = valid_file(folder);
  REQUIRE(opens_in_bounds(folder / "t", valid));
  for (std::size_t size = 0; size < valid.size(); ++size) {
    CHECK_FALSE(opens_in_bounds(folder / "t", valid.substr(0, size)));
  }
  CHECK_FALSE(opens_in_bounds(folder / "t", valid + "x"));
}

TEST_CASE("a file with flipped bytes is refused or leaves every tensor in bounds") {
  const TemporaryFolder folder;
  const std::string valid = valid_file(folder);
  std::mt19937 random(8);
  int opened = 0, refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string damaged = valid;
    // The header is where damage could mislead the reader.
    const auto reach = round % 2 == 0 ? 8 + header_length(valid) : valid.size();
    for (auto flips = 1 + random() % 3; flips > 0; --flips)
      damaged[random() % reach] ^= static_cast<char>(1 + random() % 255);
    ++(opens_in_bounds(folder / "t", damaged) ? opened : refused);
  }
  CHECK(opened > 0);
  CHECK(refused > 0);
}

TEST_CASE("a header whose digits changed is refused or leaves every tensor in bounds") {
  const TemporaryFolder folder;
  const std::string valid = valid_file(folder);
  const std::string alphabet = "0123456789[]{},:\"-eE. ";
  std::mt19937 random(9);
  int opened = 0, refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string damaged = valid;
    const auto position = valid.find_first_of("0123456789[],", 8 + random() % header_length(valid));
    damaged[position] = alphabet[random() % alphabet.size()];
    ++(opens_in_bounds(folder / "t", damaged) ? opened : refused);
  }
  CHECK(opened > 0);
  CHECK(refused > 0);
}

TEST_CASE("the checksum finds every flipped bit of the data") {
  const TemporaryFolder folder;
  const std::string valid = valid_file(folder);
  CHECK_NOTHROW(SafetensorsFile::open(folder / "valid").verify());
  const std::string prefix = fmt::format("'{}' is damaged: the checksum of its data is ", (folder / "t").string());
  for (std::size_t position = 8 + header_length(valid); position < valid.size(); ++position) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = valid;
      damaged[position] ^= static_cast<char>(1 << bit);
      write_bytes(folder / "t", damaged);
      const auto file = SafetensorsFile::open(folder / "t");
      CHECK(message_of<FormatError>([&] { file.verify(); }).starts_with(prefix));
    }
  }
}

TEST_CASE("a checksum finds every flipped bit of the header but in the name of its own key") {
  const TemporaryFolder folder;
  const std::string valid = valid_file(folder);
  const std::string key = "afm.xxh3.header";
  const std::size_t own = valid.find(key), header_end = 8 + header_length(valid);
  REQUIRE(own < header_end);
  int refused_at_once = 0, refused_later = 0;
  for (std::size_t position = 8; position < header_end; ++position) {
    if (position >= own && position < own + key.size()) continue;
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = valid;
      damaged[position] ^= static_cast<char>(1 << bit);
      if (!opens_in_bounds(folder / "t", damaged)) {
        ++refused_at_once;
        continue;
      }
      const auto file = SafetensorsFile::open(folder / "t");
      CHECK_THROWS_AS(file.verify(), FormatError);
      ++refused_later;
    }
  }
  CHECK(refused_at_once > 0);
  CHECK(refused_later > 0);
}

TEST_CASE("a file without a checksum of its header, as the first versions wrote it, is verified by its data") {
  const TemporaryFolder folder;
  std::string old = valid_file(folder);
  const std::size_t own = old.find("afm.xxh3.header");
  old.replace(own, 15, "another.metadata");
  old.erase(old.rfind(' ', 8 + header_length(old)), 1);
  write_bytes(folder / "old", old);
  CHECK_NOTHROW(SafetensorsFile::open(folder / "old").verify());
}

}  // namespace
}  // namespace afm
