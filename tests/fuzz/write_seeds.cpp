// write_seeds FOLDER: FOLDER/models and FOLDER/requests, what the fuzzers start from.

#include <filesystem>
#include <fstream>
#include <string>

#include "libafm/serve/pack.h"
#include "tests/serve/vocabulary_files.h"

namespace {

using namespace afm::serve::testing;

void write_models(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  auto parts = deepfm_parts();
  const Rows rows = random_rows(4);
  const auto logits = deepfm_logits(parts, rows);
  add_golden_rows(parts, rows, {logits.begin(), logits.end()});
  parts.write(folder / "deepfm");
  folded_dcn_parts().write(folder / "dcn_folded");
  const auto clicks = folder.parent_path() / "clicks";
  write_vocabulary(clicks, vocabulary_parts(click_schema(), click_values()));
  afm::serve::pack(folder / "deepfm", clicks, folder / "packed");
}

void write_requests(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  const char* const texts[] = {R"({"user": "u1", "age": 31, "genres": "drama|noir", "item": "b", "price": 2.5})",
                               R"({"user": 7, "genres": ["sci fi", 9, null], "price": "1e3"})", "{}",
                               R"({"user": true, "age": null, "item": "é"})", "u1\n31\ndrama|noir\nb\n2.5"};
  int number = 0;
  for (const char* text : texts) std::ofstream(folder / std::to_string(number++), std::ios::binary) << text;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  write_models(std::filesystem::path(argv[1]) / "models");
  write_requests(std::filesystem::path(argv[1]) / "requests");
  return 0;
}
