#include "libafm/core/safetensors.h"

#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>
#include <utility>

#include <fmt/format.h>
#include <catch2/catch_test_macros.hpp>

#include "libafm/core/error.h"
#include "tests/core/temporary_folder.h"

namespace afm {
namespace {

using testing::message_of;
using testing::read_bytes;
using testing::TemporaryFolder;
using testing::write_bytes;

constexpr DType kEveryDType[] = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kI64,
                                 DType::kI32, DType::kI16, DType::kI8,  DType::kU8,   DType::kBool};

// Random tensors with the bytes that they own.
struct RandomTensors {
  std::map<std::string, std::vector<std::byte>> storage;
  std::map<std::string, TensorView> views;

  void add(std::mt19937& random, const std::string& name, DType dtype, std::vector<int64_t> shape) {
    const auto count = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
    auto& bytes = storage[name];
    bytes.resize(static_cast<std::size_t>(count) * size_of(dtype));
    for (auto& byte : bytes) byte = static_cast<std::byte>(random());
    views[name] = {dtype, std::move(shape), bytes};
  }
};

RandomTensors random_tensors(std::mt19937& random) {
  RandomTensors tensors;
  for (const DType dtype : kEveryDType) {
    for (std::size_t dimensions = 0; dimensions < 4; ++dimensions) {
      std::vector<int64_t> shape(dimensions);
      for (auto& size : shape) size = static_cast<int64_t>(random() % 5);
      tensors.add(random, fmt::format("layer{}.{}{}", random() % 1000, name_of(dtype), dimensions), dtype,
                  std::move(shape));
    }
  }
  return tensors;
}

bool equal(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.shape == b.shape && std::ranges::equal(a.bytes, b.bytes);
}

TEST_CASE("tensors of every dtype and shape are read as they were written") {
  const TemporaryFolder folder;
  std::mt19937 random(1);
  for (int round = 0; round < 20; ++round) {
    const auto tensors = random_tensors(random);
    write_safetensors(folder / "t.safetensors", {{"kind", "test"}, {"text", "\"quoted\" \n \u00fc"}}, tensors.views);
    const auto file = SafetensorsFile::open(folder / "t.safetensors");
    file.verify();
    REQUIRE(file.tensors().size() == tensors.views.size());
    for (const auto& [name, view] : tensors.views) CHECK(equal(file.at(name), view));
    CHECK(file.metadata_at("kind") == "test");
    CHECK(file.metadata_at("text") == "\"quoted\" \n \u00fc");
  }
}

TEST_CASE("every tensor that is written is aligned to its element size") {
  const TemporaryFolder folder;
  std::mt19937 random(2);
  for (int round = 0; round < 20; ++round) {
    write_safetensors(folder / "t.safetensors", {}, random_tensors(random).views);
    const auto file = SafetensorsFile::open(folder / "t.safetensors");
    for (const auto& [name, view] : file.tensors()) {
      CHECK(reinterpret_cast<std::uintptr_t>(view.bytes.data()) % size_of(view.dtype) == 0);
    }
  }
}

TEST_CASE("the same tensors and metadata give the same bytes") {
  const TemporaryFolder folder;
  std::mt19937 random(3);
  const auto tensors = random_tensors(random);
  write_safetensors(folder / "a", {{"kind", "test"}}, tensors.views);
  write_safetensors(folder / "b", {{"kind", "test"}}, tensors.views);
  write_safetensors(folder / "c", {{"kind", "other"}}, tensors.views);
  CHECK(read_bytes(folder / "a") == read_bytes(folder / "b"));
  CHECK_FALSE(read_bytes(folder / "a") == read_bytes(folder / "c"));
}

TEST_CASE("a file without tensors is valid") {
  const TemporaryFolder folder;
  write_safetensors(folder / "empty", {}, {});
  const auto file = SafetensorsFile::open(folder / "empty");
  file.verify();
  CHECK(file.tensors().empty());
  CHECK(file.metadata().size() == 2);
}

TEST_CASE("a file of the plainest foreign writer is read, and has no checksum") {
  const TemporaryFolder folder;
  const std::string header = R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})";
  write_bytes(folder / "foreign", std::string{static_cast<char>(header.size()), 0, 0, 0, 0, 0, 0, 0} + header + "xy");
  const auto file = SafetensorsFile::open(folder / "foreign");
  CHECK(std::memcmp(file.at("b").bytes.data(), "xy", 2) == 0);
  CHECK_FALSE(file.has_checksum());
  CHECK(message_of<FormatError>([&] { file.verify(); }) ==
        fmt::format("'{}' has no metadata 'afm.xxh3'", (folder / "foreign").string()));
}

TEST_CASE("a stale checksum in the metadata is replaced") {
  const TemporaryFolder folder;
  std::mt19937 random(4);
  write_safetensors(folder / "t", {{"afm.xxh3", "0000000000000000"}}, random_tensors(random).views);
  const auto file = SafetensorsFile::open(folder / "t");
  CHECK(file.has_checksum());
  CHECK_NOTHROW(file.verify());
}

TEST_CASE("the mapping outlives the file and its name") {
  const TemporaryFolder folder;
  std::mt19937 random(5);
  RandomTensors tensors;
  tensors.add(random, "a", DType::kF32, {1000});
  write_safetensors(folder / "t", {}, tensors.views);
  TensorView view;
  std::shared_ptr<const void> mapping;
  {
    const auto file = SafetensorsFile::open(folder / "t");
    view = file.at("a");
    mapping = file.keep_alive();
  }
  std::filesystem::remove(folder / "t");
  CHECK(equal(view, tensors.views.at("a")));
}

TEST_CASE("a file can be replaced while it is open") {
  const TemporaryFolder folder;
  std::mt19937 random(6);
  RandomTensors before, after;
  before.add(random, "a", DType::kI64, {512});
  after.add(random, "a", DType::kI64, {512});
  write_safetensors(folder / "t", {}, before.views);
  const auto file = SafetensorsFile::open(folder / "t");
  write_safetensors(folder / "t", {}, after.views);
  CHECK(equal(file.at("a"), before.views.at("a")));
  CHECK(equal(SafetensorsFile::open(folder / "t").at("a"), after.views.at("a")));
}

TEST_CASE("tensors that cannot be written are refused before a file is made") {
  const TemporaryFolder folder;
  const auto refusal = [&](const std::string& name, std::vector<int64_t> shape, std::size_t bytes) {
    const std::vector<std::byte> storage(bytes);
    return message_of<std::invalid_argument>([&] {
      write_safetensors(folder / "t", {}, {{name, TensorView{DType::kF32, std::move(shape), storage}}});
    });
  };
  CHECK(refusal("a", {2, 3}, 20) == "tensor 'a' must have the bytes of its shape and dtype, got 20");
  CHECK(refusal("a", {-1}, 4) == "tensor 'a' must have the bytes of its shape and dtype, got 4");
  CHECK(refusal("a", {std::numeric_limits<int64_t>::max(), 4}, 4) ==
        "tensor 'a' must have the bytes of its shape and dtype, got 4");
  CHECK(refusal("__metadata__", {1}, 4) == "a tensor must not be named '__metadata__'");
  CHECK(refusal("\xff", {1}, 4) == "the names and metadata of a safetensors file must be UTF-8");
  CHECK(folder.file_count() == 0);
}

TEST_CASE("names that a file lacks are refused with the file and the name") {
  const TemporaryFolder folder;
  write_safetensors(folder / "t", {}, {});
  const auto file = SafetensorsFile::open(folder / "t");
  CHECK(message_of<FormatError>([&] { file.at("w"); }) == fmt::format("'{}' has no tensor 'w'", file.path().string()));
  CHECK(message_of<FormatError>([&] { file.metadata_at("kind"); }) ==
        fmt::format("'{}' has no metadata 'kind'", file.path().string()));
}

}  // namespace
}  // namespace afm
