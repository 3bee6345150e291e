#include <vector>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/serve/request.h"
#include "libafm/serve/scorer_state.h"

namespace afm::serve {
namespace {

struct RequestRow {
  std::vector<int32_t> ids;
  std::vector<float> dense;
};

// The calling thread's row: it grows once.
RequestRow& thread_row(const RequestEncoder& encoder) {
  thread_local RequestRow row;
  row.ids.resize(static_cast<std::size_t>(encoder.slot_count()));
  row.dense.resize(static_cast<std::size_t>(encoder.dense_count()));
  return row;
}

const RequestEncoder& encoder_of(const ScorerState& state) {
  if (state.encoder) return *state.encoder;
  fail<DataError>("'{}' holds no vocabulary, so it cannot score raw values; pack it with its dataset folder (afm pack)",
                  state.tensors.file().path().string());
}

float score_encoded(const ScorerState& state, auto encode) {
  const RequestEncoder& encoder = encoder_of(state);
  RequestRow& row = thread_row(encoder);
  encode(encoder, row.ids.data(), row.dense.data());
  float probability = 0;
  score_rows(state, {row.ids.data(), row.dense.data(), 1}, &probability);
  apply_sigmoid(&probability, 1);
  return probability;
}

}  // namespace

float Scorer::score(std::span<const Value> request) const {
  return score_encoded(
      *state_, [&](const RequestEncoder& encoder, int32_t* ids, float* dense) { encoder.encode(request, ids, dense); });
}

float Scorer::score_json(std::string_view request) const {
  return score_encoded(*state_, [&](const RequestEncoder& encoder, int32_t* ids, float* dense) {
    encoder.encode_json(request, ids, dense);
  });
}

const RequestEncoder* Scorer::encoder() const { return state_->encoder.get(); }

}  // namespace afm::serve
