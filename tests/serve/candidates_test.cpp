#include <algorithm>
#include <cmath>
#include <random>
#include <stdexcept>
#include <vector>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "libafm/core/error.h"
#include "libafm/serve/scorer.h"
#include "tests/core/temporary_folder.h"
#include "tests/serve/model_files.h"

namespace afm::serve {
namespace {

using afm::testing::message_of;
using afm::testing::TemporaryFolder;
using testing::Rows;

// Rows of the same user, taken apart.
struct Split {
  std::vector<int32_t> user_ids, item_ids;
  std::vector<float> user_dense, item_dense;
  Rows joined;
};

bool is_user(const std::vector<int64_t>& fields, std::size_t field) {
  return std::find(fields.begin(), fields.end(), static_cast<int64_t>(field)) != fields.end();
}

// Moves one row's value to the user's side (first row only) or the items', and makes the joined rows agree.
template <typename Number>
void split_value(std::vector<Number>& all, std::size_t width, std::size_t column, std::size_t row, bool user,
                 std::vector<Number>& users, std::vector<Number>& items) {
  Number& value = all[row * width + column];
  if (user) value = all[column];
  if (user && row == 0) users.push_back(value);
  if (!user) items.push_back(value);
}

Split split_rows(Rows rows, const std::vector<int64_t>& user_fields) {
  const Schema schema = testing::click_schema();
  Split split;
  for (std::size_t r = 0; r < static_cast<std::size_t>(rows.count); ++r) {
    std::size_t slot = 0, column = 0;
    for (std::size_t i = 0; i < schema.fields.size(); ++i) {
      const bool user = is_user(user_fields, i);
      for (int64_t s = 0; s < schema.fields[i].slots(); ++s) {
        split_value(rows.ids, testing::kSlots, slot++, r, user, split.user_ids, split.item_ids);
      }
      if (schema.fields[i].has_ids()) continue;
      split_value(rows.dense, testing::kDense, column++, r, user, split.user_dense, split.item_dense);
    }
  }
  split.joined = std::move(rows);
  return split;
}

std::vector<float> candidate_logits(const CandidateScorer& scorer, const Split& split) {
  std::vector<float> logits(static_cast<std::size_t>(split.joined.count));
  scorer.score(split.user_ids.data(), split.user_dense.data(), split.item_ids.data(), split.item_dense.data(),
               split.joined.count, logits.data());
  return logits;
}

TEST_CASE("candidates score as the joined rows do") {
  const TemporaryFolder folder;
  const bool folded = GENERATE(false, true);
  (folded ? testing::folded_dcn_parts() : testing::deepfm_parts()).write(folder / "model");
  const auto scorer = Scorer::open(folder / "model");
  const std::vector<int64_t> user_fields =
      GENERATE(std::vector<int64_t>{}, std::vector<int64_t>{0}, std::vector<int64_t>{4, 2}, std::vector<int64_t>{1},
               std::vector<int64_t>{0, 1, 2}, std::vector<int64_t>{3, 2, 0}, std::vector<int64_t>{0, 1, 2, 3, 4});
  const auto split = split_rows(testing::random_rows(GENERATE(1, 5, 200)), user_fields);
  const auto candidates = scorer.candidates(user_fields);
  CHECK(candidates.user_slots() == static_cast<int64_t>(split.user_ids.size()));
  CHECK(candidates.user_dense() == static_cast<int64_t>(split.user_dense.size()));
  CHECK(candidates.item_slots() == testing::kSlots - candidates.user_slots());
  CHECK(candidates.item_dense() == testing::kDense - candidates.user_dense());
  const auto logits = candidate_logits(candidates, split);
  std::vector<float> expected(logits.size());
  scorer.score(split.joined.ids.data(), split.joined.dense.data(), split.joined.count, expected.data());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    CHECK(std::abs(logits[i] - expected[i]) <= 1e-5F * (1 + std::abs(expected[i])));
  }
}

TEST_CASE("another user changes the scores of the same items") {
  const TemporaryFolder folder;
  testing::deepfm_parts().write(folder / "model");
  const auto candidates = Scorer::open(folder / "model").candidates(std::vector<int64_t>{0});
  auto split = split_rows(testing::random_rows(5), {0});
  const auto before = candidate_logits(candidates, split);
  split.user_ids[0] = (split.user_ids[0] + 1) % testing::kUserCount;
  const auto after = candidate_logits(candidates, split);
  for (std::size_t i = 0; i < 5; ++i) CHECK(std::abs(before[i] - after[i]) > 1e-3F);
}

TEST_CASE("an id of a user or of an item out of range is refused by the name of its field") {
  const TemporaryFolder folder;
  testing::deepfm_parts().write(folder / "model");
  const auto candidates = Scorer::open(folder / "model").candidates(std::vector<int64_t>{0, 2});
  const auto split = split_rows(testing::random_rows(200), {0, 2});
  auto changed = split;
  changed.user_ids[3] = 5;
  CHECK(message_of<DataError>([&] { candidate_logits(candidates, changed); }) ==
        "field 'genres' has id 5, its ids are 0 to 4");
  changed = split;
  changed.item_ids[199] = -1;
  CHECK(message_of<DataError>([&] { candidate_logits(candidates, changed); }) ==
        "field 'item' has id -1, its ids are 0 to 3");
}

TEST_CASE("fields of a user that do not exist, or are named twice, are refused") {
  const TemporaryFolder folder;
  testing::deepfm_parts().write(folder / "model");
  const auto scorer = Scorer::open(folder / "model");
  CHECK(message_of<std::invalid_argument>([&] { scorer.candidates(std::vector<int64_t>{5}); }) ==
        "user_fields must each be in [0, 5), got 5");
  CHECK(message_of<std::invalid_argument>([&] {
          scorer.candidates(std::vector<int64_t>{1, 1});
        }) == "user_fields must each be named once, got 1 twice");
}

}  // namespace
}  // namespace afm::serve
