#pragma once

// Many threads that score at once, with requests of which some are malformed: what was lost, what was wrong.

#include <cstdint>
#include <string>
#include <vector>

#include "libafm/serve/scorer.h"

namespace afm::load {

// n rows in both forms that a scorer takes, and what another program makes of them.
struct Rows {
  std::vector<int32_t> ids;        // [n, S]
  std::vector<float> dense;        // [n, Q]
  std::vector<std::string> texts;  // [n], the same rows as JSON objects of raw values
  std::vector<float> logits;       // [n], expected
  int64_t count() const { return static_cast<int64_t>(logits.size()); }
};

struct LoadOptions {
  int threads = 8;
  int64_t requests = 10'000'000;  // of one row of ids, of up to 16 rows of ids, or of one JSON object
  double malformed = 0.01;        // share: an id beyond its field, a JSON text cut short, an unknown field
  double tolerance = 2e-5;        // of a logit, relative to its size where that is above 1
};

struct LoadResult {
  int64_t answered = 0, refused = 0;  // by afm::DataError
  int64_t wrong = 0;                  // answers beyond the tolerance
  int64_t answered_wrongly = 0;       // malformed requests that got an answer, good ones that got none
  int64_t malformed = 0, rows = 0;    // sent
  double worst = 0.0;                 // distance from the expected logit, relative as above
  double seconds = 0.0;
  std::vector<int64_t> memory;  // bytes resident at each tenth of the requests
};

// `scorer` must be packed.
LoadResult run_load(const serve::Scorer& scorer, const Rows& rows, const LoadOptions& options);

}  // namespace afm::load
