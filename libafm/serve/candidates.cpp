#include <algorithm>
#include <stdexcept>

#include "libafm/core/fail.h"
#include "libafm/serve/scorer_state.h"

namespace afm::serve {

struct CandidateState {
  std::shared_ptr<const ScorerState> scorer;
  Features user, item;
  int64_t scratch = 0;  // floats
};

namespace {

Choice user_choice(const Schema& schema, std::span<const int64_t> user_fields) {
  Choice choice{.chosen = std::vector<bool>(schema.fields.size())};
  for (const int64_t field : user_fields) {
    if (field < 0 || field >= static_cast<int64_t>(schema.fields.size())) {
      fail<std::invalid_argument>("user_fields must each be in [0, {}), got {}", schema.fields.size(), field);
    }
    if (choice.chosen[static_cast<std::size_t>(field)]) {
      fail<std::invalid_argument>("user_fields must each be named once, got {} twice", field);
    }
    choice.chosen[static_cast<std::size_t>(field)] = true;
  }
  return choice;
}

}  // namespace

CandidateScorer Scorer::candidates(std::span<const int64_t> user_fields) const {
  const ModelHeader& header = state_->header;
  const Choice users = user_choice(header.schema, user_fields);
  Choice items{.chosen = users.chosen, .carries = true};
  items.chosen.flip();
  // The file once more: what a scorer keeps of it is arranged for all columns.
  StoredTensors tensors = state_->tensors;
  const Blueprint blueprint = read_blueprint(tensors, header, state_->embedding);
  const auto state = std::make_shared<CandidateState>();
  state->scorer = state_;
  state->user = features_of(blueprint, header, state_->embedding, users);
  state->item = features_of(blueprint, header, state_->embedding, items);
  tensors.release_copied();
  const Program& program = state_->program;
  state->scratch = share_scratch(program, state->user) +
                   std::max(program_scratch(program, state->user), program_scratch(program, state->item));
  CandidateScorer scorer;
  scorer.state_ = state;
  return scorer;
}

void CandidateScorer::score(const int32_t* user_ids, const float* user_dense, const int32_t* item_ids,
                            const float* item_dense, int64_t items, float* logits) const {
  const ScorerState& scorer = *state_->scorer;
  const Features &user = state_->user, &item = state_->item;
  Scratch scratch = thread_scratch(state_->scratch);
  const FeatureRows user_row{user_ids, user_dense, 1};
  check_ids(user, user_row);
  const Given given = share_of(*scorer.kernels, scorer.program, user, user_row, scratch);
  for (int64_t first = 0; first < items; first += kLinearRows) {
    const FeatureRows block{item.slots > 0 ? item_ids + first * item.slots : nullptr,
                            item.dense > 0 ? item_dense + first * item.dense : nullptr,
                            std::min(kLinearRows, items - first)};
    check_ids(item, block);
    run(*scorer.kernels, scorer.program, item, block, given, logits + first, scratch);
  }
}

void CandidateScorer::probabilities(const int32_t* user_ids, const float* user_dense, const int32_t* item_ids,
                                    const float* item_dense, int64_t items, float* out) const {
  score(user_ids, user_dense, item_ids, item_dense, items, out);
  apply_sigmoid(out, items);
}

int64_t CandidateScorer::user_slots() const { return state_->user.slots; }
int64_t CandidateScorer::user_dense() const { return state_->user.dense; }
int64_t CandidateScorer::item_slots() const { return state_->item.slots; }
int64_t CandidateScorer::item_dense() const { return state_->item.dense; }

}  // namespace afm::serve
