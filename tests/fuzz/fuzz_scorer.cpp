// Any bytes as a model file: Scorer::open refuses them with an error of libafm, or gives a scorer that can be used.

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "libafm/core/error.h"
#include "libafm/serve/scorer.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

using afm::serve::Scorer;

constexpr int64_t kMostSlots = 4096, kRows = 3;

// A file in memory, by the path that names it.
class MemoryFile {
 public:
  MemoryFile(const std::uint8_t* data, std::size_t size) : descriptor_(::memfd_create("model", 0)) {
    for (std::size_t done = 0; done < size;) {
      const ssize_t written = ::write(descriptor_, data + done, size - done);
      if (written <= 0) break;
      done += static_cast<std::size_t>(written);
    }
  }
  ~MemoryFile() { ::close(descriptor_); }
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

void use(const Scorer& scorer) {
  if (scorer.slot_count() > kMostSlots) return;
  const std::vector<int32_t> ids(static_cast<std::size_t>(kRows * scorer.slot_count()), 0);
  const std::vector<float> dense(static_cast<std::size_t>(kRows * scorer.dense_count()), 0.5F);
  float logits[kRows] = {};
  scorer.score(ids.data(), dense.data(), kRows, logits);
  const int64_t first = 0;
  const auto candidates = scorer.candidates({&first, 1});
  candidates.score(ids.data(), dense.data(), ids.data(), dense.data(), kRows, logits);
  if (scorer.encoder() != nullptr) scorer.score_json("{}");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const MemoryFile file(data, size);
  try {
    use(Scorer::open(file.path(), {.verify = false}));
  } catch (const afm::Error&) {
  }
  return 0;
}

// Mostly changes the header and corrects its length, without which few changes would reach what lies behind it.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  std::uint64_t length = 0;
  constexpr std::size_t kLengthBytes = sizeof length;
  if (size < kLengthBytes || seed % 4 == 0) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(&length, data, kLengthBytes);
  if (length > size - kLengthBytes) return LLVMFuzzerMutate(data, size, max_size);
  const std::vector<std::uint8_t> rest(data + kLengthBytes + length, data + size);
  if (rest.size() + kLengthBytes >= max_size) return size;
  const std::size_t most = max_size - kLengthBytes - rest.size();
  length = LLVMFuzzerMutate(data + kLengthBytes, length, most);
  std::memcpy(data, &length, kLengthBytes);
  std::copy(rest.begin(), rest.end(), data + kLengthBytes + length);
  return kLengthBytes + length + rest.size();
}
