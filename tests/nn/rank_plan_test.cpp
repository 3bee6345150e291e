#include "libafm/nn/rank_plan.h"

#include <random>
#include <string>

#include <catch2/catch_test_macros.hpp>

#include "libafm/core/error.h"
#include "tests/core/temporary_folder.h"

namespace afm {

using testing::message_of;
using testing::TemporaryFolder;
using testing::write_bytes;

RankPlan random_plan(std::mt19937& generator) {
  const auto below = [&](int64_t n) { return std::uniform_int_distribution<int64_t>(0, n - 1)(generator); };
  RankPlan plan;
  const int64_t layers = below(5);
  for (int64_t i = 0; i < layers; ++i) {
    LayerPlan layer;
    layer.basis = static_cast<Basis>(below(3));
    layer.joint = below(2) == 1;
    layer.bits = static_cast<Bits>(below(3));
    layer.scale = static_cast<ScaleBy>(below(2));
    layer.units = below(2) * below(100);
    layer.tiers.resize(static_cast<std::size_t>(below(3)));
    for (auto& field : layer.tiers) {
      for (int64_t t = below(3); t > 0; --t) field.push_back({1 + below(9), below(9), below(2) == 1});
    }
    layer.activation = static_cast<FactorActivation>(below(3));
    const int64_t ranks = below(4);
    for (int64_t j = 0; j < ranks; ++j) layer.ranks.push_back(below(100));
    plan[i == 0 ? "" : "tower \"" + std::to_string(i) + "\".\xc3\xa9"] = layer;
  }
  return plan;
}

std::string with_layers(const std::string& layers) {
  return R"({"kind": "afm-rank-plan", "version": 1, "layers": )" + layers + "}";
}

std::string refusal(const std::string& text) {
  return message_of<FormatError>([&] { plan_from_json(text); });
}

TEST_CASE("every plan survives being written and read") {
  std::mt19937 generator(1);
  for (int trial = 0; trial < 200; ++trial) {
    const RankPlan plan = random_plan(generator);
    CHECK((plan_from_json(plan_to_json(plan)) == plan));
  }
}

TEST_CASE("a plan is written one layer per line") {
  const RankPlan plan = {{"embedding", {.ranks = {6, 3, 0, 1}}},
                         {"mlp.layers.1", {.ranks = {64}, .activation = FactorActivation::kShiftedRelu}}};
  CHECK(plan_to_json(plan) == R"({
  "kind": "afm-rank-plan",
  "version": 1,
  "layers": {
    "embedding": {"ranks":[6,3,0,1],"basis":"field"},
    "mlp.layers.1": {"rank":64,"activation":"shifted_relu"}
  }
}
)");
  CHECK(plan_from_json(plan_to_json({})).empty());
}

TEST_CASE("a plan written by hand may leave out what has a default") {
  const RankPlan plan = plan_from_json(with_layers(R"({"a": {"rank": 3}, "b": {"ranks": [1, 2]}})"));
  CHECK((plan == RankPlan{{"a", {.ranks = {3}}}, {"b", {.ranks = {1, 2}}}}));
}

TEST_CASE("what differs from the defaults is written behind the ranks, and a dense layer needs no ranks") {
  const RankPlan plan = {
      {"a", {.ranks = {3, 1}, .basis = Basis::kNone, .joint = true, .tiers = {{{5, 3}, {9, 1, true}}, {}}}},
      {"b", {.ranks = {2}, .bits = Bits::kInt4, .scale = ScaleBy::kColumn}},
      {"c", {.bits = Bits::kInt8}},
      {"d", {.units = 128}}};
  CHECK(plan_to_json(plan) == R"({
  "kind": "afm-rank-plan",
  "version": 1,
  "layers": {
    "a": {"ranks":[3,1],"basis":"none","joint":true,"tiers":[[{"rows":5,"rank":3},{"rows":9,"rank":1,"shared":true}],[]]},
    "b": {"rank":2,"activation":"none","bits":"int4","scale":"column"},
    "c": {"bits":"int8"},
    "d": {"units":128}
  }
}
)");
  CHECK((plan_from_json(plan_to_json(plan)) == plan));
}

TEST_CASE("what is not a plan is refused with one sentence") {
  CHECK(refusal("[]") == "not a rank plan: it must be a JSON object, got []");
  CHECK(refusal("{") != "");
  CHECK(refusal(std::string(100000, '[') + std::string(100000, ']')) ==
        "not a rank plan: JSON must nest at most 64 deep");
  CHECK(refusal(R"({"kind": "afm-model", "version": 1, "layers": {}})") ==
        "not a rank plan: kind must be 'afm-rank-plan', got 'afm-model'");
  CHECK(refusal(R"({"kind": "afm-rank-plan", "version": 2, "layers": {}})") ==
        "not a rank plan: version 2 was written by a newer libafm, this one reads up to 1; upgrade");
  CHECK(refusal(R"({"kind": "afm-rank-plan", "layers": {}})") == "not a rank plan: version must be at least 1, got 0");
  CHECK(refusal(R"({"kind": "afm-rank-plan", "version": 1, "layer": {}})") ==
        "not a rank plan: a rank plan has no field 'layer'; its fields are: kind, version");
  CHECK(refusal(R"({"kind": "afm-rank-plan", "version": 1})") ==
        "not a rank plan: layers must be an object of layer names");
  CHECK(refusal(with_layers("[1]")) == "not a rank plan: layers must be an object of layer names");
}

TEST_CASE("a bad layer of a plan is refused by name") {
  CHECK(refusal(with_layers(R"({"a": {"rank": 1, "rnk": 2}})")) ==
        "not a rank plan: layer 'a' has no field 'rnk'; its fields are: rank, ranks, basis, activation, "
        "joint, tiers, bits, scale, units");
  CHECK(refusal(with_layers(R"({"a": {"rank": -1}})")) ==
        "not a rank plan: layer 'a' must have ranks of at least 0, got -1");
  CHECK(refusal(with_layers(R"({"a": {"ranks": [1, -2]}})")) ==
        "not a rank plan: layer 'a' must have ranks of at least 0, got -2");
  CHECK(refusal(with_layers(R"({"a": {"rank": 1.5}})")) ==
        "not a rank plan: layer 'a'.rank must be an integer, got 1.5");
  CHECK(refusal(with_layers(R"({"a": {"rank": 1, "activation": "tanh"}})")) ==
        R"(not a rank plan: layer 'a'.activation must be one of none, relu, shifted_relu, got "tanh")");
  CHECK(refusal(with_layers(R"({"a": {}})")) == "not a rank plan: layer 'a' must have either rank or ranks, got {}");
  CHECK(refusal(with_layers(R"({"a": {"rank": 1, "ranks": [1]}})")) ==
        R"(not a rank plan: layer 'a' must have either rank or ranks, got {"rank":1,"ranks":[1]})");
  CHECK(refusal(with_layers(R"({"a": {"rank": 1, "units": -1}})")) ==
        "not a rank plan: layer 'a' must have units of at least 0, got -1");
  CHECK(refusal(with_layers(R"({"a": {"rank": 1, "bits": "int3"}})")) ==
        R"(not a rank plan: layer 'a'.bits must be one of float, int8, int4, got "int3")");
  CHECK(refusal(with_layers(R"({"a": {"scale": "row"}})")) ==
        R"(not a rank plan: layer 'a' must have either rank or ranks, got {"scale":"row"})");
  CHECK(refusal(with_layers(R"({"a": {"ranks": [1], "tiers": [3]}})")) ==
        "not a rank plan: layer 'a'.tiers must be one list of tiers per field, got [3]");
  CHECK(refusal(with_layers(R"({"a": {"ranks": [1], "tiers": {}}})")) ==
        "not a rank plan: layer 'a'.tiers must be one list of tiers per field, got {}");
  CHECK(refusal(with_layers(R"({"a": {"ranks": [1], "tiers": [[{"row": 3}]]}})")) ==
        "not a rank plan: layer 'a'.tiers has no field 'row'; its fields are: rows, rank, shared");
  CHECK(refusal(with_layers(R"({"a": {"ranks": [1], "tiers": [[{"rank": 1}]]}})")) ==
        "not a rank plan: layer 'a' must have tiers of at least 1 row, got 0");
  CHECK(refusal(with_layers(R"({"a": {"ranks": [1], "tiers": [[{"rows": 3, "rank": -1}]]}})")) ==
        "not a rank plan: layer 'a' must have tiers of at least rank 0, got -1");
  CHECK(refusal(with_layers(R"({"a": 3})")) == "not a rank plan: layer 'a' must be a JSON object, got 3");
}

TEST_CASE("a plan file is read back, and its errors name it") {
  const TemporaryFolder folder;
  const RankPlan plan = {{"head", {.ranks = {2}}}};
  write_plan(folder / "plan.json", plan);
  CHECK((read_plan(folder / "plan.json") == plan));
  write_bytes(folder / "bad.json", "[]");
  CHECK(message_of<FormatError>([&] { read_plan(folder / "bad.json"); }) ==
        "'" + (folder / "bad.json").string() + "' is not a rank plan: it must be a JSON object, got []");
  CHECK_THROWS_AS(read_plan(folder / "absent.json"), IoError);
}

}  // namespace afm
