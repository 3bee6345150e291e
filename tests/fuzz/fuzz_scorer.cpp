// Any bytes as a model file: Scorer::open refuses them with an error of libafm, or gives a scorer that can be used.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "libafm/core/error.h"
#include "libafm/serve/scorer.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/safetensors_bytes.h"

namespace {

using afm::serve::Scorer;

constexpr int64_t kMostSlots = 4096, kRows = 3;

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
  const afm::fuzz::MemoryFile file({reinterpret_cast<const char*>(data), size});
  try {
    use(Scorer::open(file.path(), {.verify = false}));
  } catch (const afm::Error&) {
  }
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  return afm::fuzz::mutate_file(data, size, max_size, seed);
}
