#include <limits>
#include <stdexcept>

#include <catch2/catch_test_macros.hpp>

#include "libafm/compress/factorize.h"
#include "tests/compress/ranker.h"
#include "tests/core/temporary_folder.h"

namespace afm::testing {
namespace {

struct Case {
  Ranker ranker = make_ranker();
  Statistics statistics = statistics_of(ranker, make_ids(200));

  // Refuses `plan` beside a layer that would fit, and leaves that one alone.
  std::string refusal(const std::string& path, std::vector<int64_t> ranks) {
    RankPlan plan = {{path, {.ranks = std::move(ranks)}}};
    if (path != "embedding") plan["embedding"].ranks = {1, 1, 1, 1};
    const bool was_dense = ranker->embedding->is_dense();
    auto message = message_of<std::invalid_argument>([&] { factorize_(*ranker, statistics, plan); });
    CHECK(ranker->embedding->is_dense() == was_dense);
    return message;
  }
};

TEST_CASE("factorize_ refuses a layer that does not exist") {
  CHECK(Case().refusal("tower.mixx", {2}) ==
        "the rank plan names 'tower.mixx', which is no layer of the model; its layers are: embedding, head, spare, "
        "tower.mix, tower.narrow");
}

TEST_CASE("factorize_ refuses a layer that no batch went through") {
  CHECK(Case().refusal("spare", {2}) == "layer 'spare' must have statistics; no batch went through it");
}

TEST_CASE("factorize_ refuses a layer that is factorized already") {
  Case it;
  factorize_(*it.ranker, it.statistics, {{"tower.mix", {.ranks = {3}}}});
  CHECK(it.refusal("tower.mix", {2}) == "layer 'tower.mix' must be dense, it is factorized already");
}

TEST_CASE("factorize_ refuses statistics of another shape or kind") {
  Case it;
  it.statistics.layers["tower.mix"] = it.statistics.layers["tower.narrow"];
  CHECK(it.refusal("tower.mix", {2}) == "layer 'tower.mix' must have the shape that its statistics were collected on");
  it.statistics.layers["tower.mix"] = it.statistics.layers["embedding"];
  CHECK(it.refusal("tower.mix", {2}) == "layer 'tower.mix' must have the shape that its statistics were collected on");
}

TEST_CASE("factorize_ refuses ranks that do not fit the layer") {
  Case it;
  CHECK(it.refusal("tower.narrow", {17}) == "a rank of layer 'tower.narrow' must be in [0, 16], got 17");
  CHECK(it.refusal("tower.narrow", {1, 2}) == "the rank plan of layer 'tower.narrow' must have 1 ranks, got 2");
  CHECK(it.refusal("embedding", {1, 2, 3, 7}) == "a rank of layer 'embedding' must be in [0, 6], got 7");
}

TEST_CASE("factorize_ refuses weights that are not finite") {
  Case it;
  {
    const torch::NoGradGuard no_grad;
    it.ranker->tower->mix->bias[2] = std::numeric_limits<double>::infinity();
  }
  CHECK(it.refusal("tower.mix", {2}) == "the weights of layer 'tower.mix' must be finite, got a NaN or an infinity");
}

}  // namespace
}  // namespace afm::testing
