// A server of somebody else's: it links the scorer and nothing else of libafm.
//   server [MODEL]     scores one row of unknown values

#include <cstdio>
#include <filesystem>
#include <vector>

#include "libafm/core/error.h"
#include "libafm/serve/scorer.h"

int main(int argc, char** argv) {
  const std::filesystem::path path = argc > 1 ? argv[1] : "no-such-model.safetensors";
  try {
    const auto scorer = afm::serve::Scorer::open(path);
    const std::vector<int32_t> ids(static_cast<std::size_t>(scorer.slot_count()));
    const std::vector<float> dense(static_cast<std::size_t>(scorer.dense_count()));
    float probability = 0;
    scorer.probabilities(ids.data(), dense.data(), 1, &probability);
    std::printf("%g\n", static_cast<double>(probability));
    return 0;
  } catch (const afm::IoError& error) {
    std::printf("%s\n", error.what());
    return argc > 1 ? 1 : 0;
  }
}
