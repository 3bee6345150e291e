// Any bytes as a model file: load_model refuses them with an error of libafm, or gives a model that computes. Checksums
// are made right first, or nothing would reach what lies behind them; fuzz_safetensors tries those.

#include <cstddef>
#include <cstdint>
#include <string>

#include <ATen/ATen.h>
#include <torch/types.h>

#include "libafm/core/error.h"
#include "libafm/data/batch.h"
#include "models/zoo.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/safetensors_bytes.h"

namespace {

constexpr int64_t kMostSlots = 4096, kRows = 3;

void use(afm::Model& model) {
  const int64_t slots = model.schema().slot_count();
  if (slots > kMostSlots) return;
  const torch::NoGradGuard no_grad;
  model.forward({.ids = at::zeros({kRows, slots}, at::kInt),
                 .dense = at::full({kRows, model.schema().dense_count()}, 0.5),
                 .label = {}});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  afm::fuzz::seal(bytes);
  const afm::fuzz::MemoryFile file(bytes);
  try {
    use(*afm::models::load_model(file.path()));
  } catch (const afm::Error&) {
  }
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  return afm::fuzz::mutate_file(data, size, max_size, seed);
}
