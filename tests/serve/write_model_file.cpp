// write_model_file FOLDER: model files for the C test (deepfm.safetensors, with golden rows) and for fuzzing (all).

#include <filesystem>
#include <string>
#include <vector>

#include "tests/serve/model_files.h"

namespace {

void write_with_golden_rows(const std::filesystem::path& path) {
  auto parts = afm::serve::testing::deepfm_parts();
  const auto rows = afm::serve::testing::random_rows(4);
  const auto logits = afm::serve::testing::deepfm_logits(parts, rows);
  afm::serve::testing::add_golden_rows(parts, rows, {logits.begin(), logits.end()});
  parts.write(path);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const std::filesystem::path folder = argv[1];
  std::filesystem::create_directories(folder);
  write_with_golden_rows(folder / "deepfm.safetensors");
  afm::serve::testing::deepfm_parts().write(folder / "deepfm_plain.safetensors");
  afm::serve::testing::folded_dcn_parts().write(folder / "dcn_folded.safetensors");
  return 0;
}
