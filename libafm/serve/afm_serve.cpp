#include "libafm/serve/afm_serve.h"

#include <exception>
#include <new>
#include <stdexcept>
#include <string>

#include "libafm/serve/scorer.h"

struct afm_scorer {
  afm::serve::Scorer scorer;
};

struct afm_candidates {
  afm::serve::CandidateScorer scorer;
};

namespace {

std::string& last_error() {
  thread_local std::string text;
  return text;
}

// What `call` gives; `otherwise` and the error's text after an exception, none of which may pass into C.
template <typename Result, typename Call>
Result guarded(Result otherwise, Call call) noexcept {
  try {
    return call();
  } catch (const std::exception& error) {
    try {
      last_error() = error.what();
    } catch (...) {
      last_error().clear();  // no memory for the text
    }
  }
  return otherwise;
}

template <typename Handle>
const auto& scorer_of(const Handle* handle) {
  if (handle == nullptr) throw std::invalid_argument("the scorer must not be null");
  return handle->scorer;
}

}  // namespace

afm_scorer* afm_serve_open(const char* path) {
  return guarded<afm_scorer*>(nullptr, [&] {
    if (path == nullptr) throw std::invalid_argument("the path must not be null");
    return new afm_scorer{afm::serve::Scorer::open(path)};
  });
}

void afm_serve_close(afm_scorer* scorer) { delete scorer; }

const char* afm_serve_last_error(void) { return last_error().c_str(); }

int64_t afm_serve_slot_count(const afm_scorer* scorer) {
  return guarded<int64_t>(-1, [&] { return scorer_of(scorer).slot_count(); });
}

int64_t afm_serve_dense_count(const afm_scorer* scorer) {
  return guarded<int64_t>(-1, [&] { return scorer_of(scorer).dense_count(); });
}

int64_t afm_serve_golden_rows(const afm_scorer* scorer) {
  return guarded<int64_t>(-1, [&] { return scorer_of(scorer).golden_rows(); });
}

int afm_serve_score(const afm_scorer* scorer, const int32_t* ids, const float* dense, int64_t rows, float* logits) {
  return guarded(-1, [&] {
    scorer_of(scorer).score(ids, dense, rows, logits);
    return 0;
  });
}

int afm_serve_probabilities(const afm_scorer* scorer, const int32_t* ids, const float* dense, int64_t rows,
                            float* out) {
  return guarded(-1, [&] {
    scorer_of(scorer).probabilities(ids, dense, rows, out);
    return 0;
  });
}

int afm_serve_score_json(const afm_scorer* scorer, const char* request, float* probability) {
  return guarded(-1, [&] {
    if (request == nullptr) throw std::invalid_argument("the request must not be null");
    *probability = scorer_of(scorer).score_json(request);
    return 0;
  });
}

afm_candidates* afm_serve_candidates(const afm_scorer* scorer, const int64_t* user_fields, size_t count) {
  return guarded<afm_candidates*>(nullptr, [&] {
    return new afm_candidates{scorer_of(scorer).candidates({user_fields, count})};
  });
}

void afm_serve_close_candidates(afm_candidates* candidates) { delete candidates; }

int afm_serve_score_candidates(const afm_candidates* candidates, const int32_t* user_ids, const float* user_dense,
                               const int32_t* item_ids, const float* item_dense, int64_t items, float* logits) {
  return guarded(-1, [&] {
    scorer_of(candidates).score(user_ids, user_dense, item_ids, item_dense, items, logits);
    return 0;
  });
}
