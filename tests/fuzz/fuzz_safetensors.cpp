// Any bytes as a safetensors file: refused, or a file that comes out of the writer with the same content.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "libafm/core/error.h"
#include "libafm/core/safetensors.h"
#include "tests/core/temporary_folder.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/safetensors_bytes.h"

namespace {

using afm::SafetensorsFile;
using afm::TensorView;

bool equal(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.shape == b.shape && std::ranges::equal(a.bytes, b.bytes);
}

void require(bool condition) {
  if (!condition) std::abort();
}

std::map<std::string, std::string> without_checksums(std::map<std::string, std::string> metadata) {
  metadata.erase(afm::safetensors::kChecksumKey);
  metadata.erase(afm::safetensors::kHeaderChecksumKey);
  return metadata;
}

void write_again(const SafetensorsFile& file, const std::filesystem::path& path) {
  const auto metadata = without_checksums(file.metadata());
  afm::write_safetensors(path, metadata, file.tensors());
  const auto again = SafetensorsFile::open(path);
  again.verify();
  require(without_checksums(again.metadata()) == metadata);
  require(again.tensors().size() == file.tensors().size());
  for (const auto& [name, view] : file.tensors()) require(equal(again.at(name), view));
}

void check(const std::string& bytes, const std::filesystem::path& scratch) {
  const afm::fuzz::MemoryFile memory(bytes);
  try {
    const auto file = SafetensorsFile::open(memory.path());
    if (file.has_checksum()) file.verify();
    write_again(file, scratch);
  } catch (const afm::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const afm::testing::TemporaryFolder folder;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  check(bytes, folder / "again");
  afm::fuzz::seal(bytes);
  check(bytes, folder / "again");
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  return afm::fuzz::mutate_file(data, size, max_size, seed);
}
