// Any text as a request: score_json refuses it with an error of libafm, or gives a probability.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <vector>

#include "libafm/core/error.h"
#include "libafm/serve/pack.h"
#include "libafm/serve/request.h"
#include "libafm/serve/scorer.h"
#include "tests/core/temporary_folder.h"
#include "tests/serve/vocabulary_files.h"

namespace {

using afm::serve::Scorer;
using afm::serve::Value;

Scorer packed_scorer() {
  using namespace afm::serve::testing;
  const afm::testing::TemporaryFolder folder;
  deepfm_parts().write(folder / "model");
  write_vocabulary(folder / "clicks", vocabulary_parts(click_schema(), click_values()));
  afm::serve::pack(folder / "model", folder / "clicks", folder / "packed");
  return Scorer::open(folder / "packed");
}

// The text in five pieces, as values of the fields.
void score_values(const Scorer& scorer, std::string_view text) {
  std::vector<Value> values;
  for (int field = 0; field < 5; ++field) {
    const auto end = text.find('\n');
    const std::string_view piece = text.substr(0, end);
    values.push_back(piece.empty() ? Value() : Value(piece));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
  scorer.score(values);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Scorer scorer = packed_scorer();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const float probability = scorer.score_json(text);
    if (!(probability >= 0 && probability <= 1)) std::abort();
  } catch (const afm::Error&) {
  }
  try {
    score_values(scorer, text);
  } catch (const afm::Error&) {
  }
  return 0;
}
