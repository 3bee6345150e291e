// Many threads, some malformed requests, against LibTorch; benchmarks/load.cpp is the long form.

#include <array>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <catch2/catch_test_macros.hpp>

#include "benchmarks/load_rows.h"
#include "benchmarks/load_run.h"
#include "libafm/nn/model_file.h"
#include "libafm/serve/pack.h"
#include "models/zoo.h"
#include "tests/core/temporary_folder.h"

namespace afm::serve {
namespace {

Encoder click_encoder() {
  EncoderBuilder builder({.fields = {{.name = "user"},
                                     {.name = "age", .kind = FieldKind::kNumeric},
                                     {.name = "genres", .kind = FieldKind::kMulti, .max_values = 3},
                                     {.name = "device", .hash_buckets = 20}}});
  std::vector<std::string> names;
  for (int i = 0; i < 200; ++i) names.push_back("name " + std::to_string(i));
  const std::vector<std::string_view> values(names.begin(), names.end());
  const std::vector<int64_t> counts(values.size(), 5);
  const std::array<double, 3> ages = {20, 40, 60};
  for (const int64_t field : {0, 2, 3}) builder.add_counts(field, values, counts);
  builder.add_numbers(1, ages);
  return builder.build();
}

// A scorer of the kind, with fresh weights that make logits differ, and requests for it.
struct Loaded {
  Scorer scorer;
  load::Rows rows;
};

Loaded loaded(const std::string& kind, const RankPlan& plan) {
  const afm::testing::TemporaryFolder folder;
  const Encoder encoder = click_encoder();
  const auto model =
      models::make_model(kind, R"({"embedding_dim": 4, "hidden": [16], "init_std": 0.5})", encoder.schema(), plan);
  model->eval();
  encoder.save(folder / "vocabulary.safetensors");
  save_model(*model, folder / "model");
  pack(folder / "model", folder.path(), folder / "packed");
  return {Scorer::open(folder / "packed"), load::random_rows(*models::load_model(folder / "model"), encoder, 2'000, 1)};
}

}  // namespace

TEST_CASE("under load from many threads no request is lost and no answer is wrong") {
  constexpr load::LoadOptions kOptions = {.requests = 40'000};
  const RankPlan compressed = {{"embedding", {.ranks = {2, 3, 1}, .bits = Bits::kInt8}},
                               {"mlp.layers.0", {.ranks = {4}, .bits = Bits::kInt4}}};
  for (const std::string& kind : models::model_names()) {
    for (const RankPlan& plan : {RankPlan{}, compressed}) {
      const Loaded one = loaded(kind, plan);
      const auto result = load::run_load(one.scorer, one.rows, kOptions);
      CAPTURE(kind, plan.size(), result.worst);
      CHECK(result.answered + result.refused == kOptions.requests);
      CHECK(result.refused == result.malformed);
      CHECK(result.malformed > kOptions.requests / 200);
      CHECK(result.answered_wrongly == 0);
      CHECK(result.wrong == 0);
    }
  }
}

TEST_CASE("the load test finds an answer that is wrong") {
  Loaded one = loaded("deepfm", {});
  one.rows.logits[17] += 1e-3F;
  CHECK(load::run_load(one.scorer, one.rows, {.requests = 40'000}).wrong > 0);
}

}  // namespace afm::serve
