// write_seeds FOLDER: what the fuzzers start from, FOLDER/<fuzzer>/<seed>.

#include <array>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include <ATen/ATen.h>

#include "libafm/data/encoder.h"
#include "libafm/nn/model_file.h"
#include "libafm/serve/pack.h"
#include "models/zoo.h"
#include "tests/core/temporary_folder.h"
#include "tests/data/random_rows.h"
#include "tests/fuzz/parts.h"
#include "tests/serve/vocabulary_files.h"

namespace {

using afm::testing::read_bytes;
using afm::testing::write_bytes;
using std::filesystem::path;

constexpr std::string_view kPlan = R"({"kind": "afm-rank-plan", "version": 1, "layers": {
  "embedding": {"ranks": [3, 1], "joint": true, "bits": "int4",
                "tiers": [[{"rows": 9, "rank": 3}, {"rows": 41, "rank": 1, "shared": true}], []]},
  "mlp.layers.0": {"rank": 2, "activation": "relu", "bits": "int8", "scale": "column"}}})";

path seeds_of(const path& folder, std::string_view fuzzer) {
  std::filesystem::create_directories(folder / fuzzer);
  return folder / fuzzer;
}

void write_scorer_models(const path& folder) {
  using namespace afm::serve::testing;
  const afm::testing::TemporaryFolder clicks;
  auto parts = deepfm_parts();
  const Rows rows = random_rows(4);
  const auto logits = deepfm_logits(parts, rows);
  add_golden_rows(parts, rows, {logits.begin(), logits.end()});
  parts.write(folder / "deepfm");
  folded_dcn_parts().write(folder / "dcn_folded");
  write_vocabulary(clicks.path(), vocabulary_parts(click_schema(), click_values()));
  afm::serve::pack(folder / "deepfm", clicks.path(), folder / "packed");
}

void write_requests(const path& folder) {
  constexpr std::array kTexts = {R"({"user": "u1", "age": 31, "genres": "drama|noir", "item": "b", "price": 2.5})",
                                 R"({"user": 7, "genres": ["sci fi", 9, null], "price": "1e3"})", "{}",
                                 R"({"user": true, "age": null, "item": "é"})", "u1\n31\ndrama|noir\nb\n2.5"};
  int number = 0;
  for (const char* text : kTexts) write_bytes(folder / std::to_string(number++), text);
}

afm::Schema full_schema() {
  afm::Schema schema = afm::testing::mixed_schema();
  schema.fields.push_back({.name = "device", .cardinality = 9, .min_count = 3, .hash_buckets = 8});
  schema.fields[1] = {.name = "price",
                      .kind = afm::FieldKind::kNumeric,
                      .transform = afm::Transform::kStandard,
                      .fill = 1,
                      .mean = 2.5,
                      .scale = 0.5};
  return schema;
}

void write_json(const path& folder) {
  write_bytes(folder / "schema", afm::schema_to_json(full_schema()));
  write_bytes(folder / "plan", kPlan);
}

// A dataset of two small fields and a number, its vocabulary counted or, with hashed fields, absent.
void write_datasets(const path& folder) {
  const afm::testing::TemporaryFolder work;
  afm::EncoderBuilder builder({.fields = {{.name = "user"},
                                          {.name = "genres", .kind = afm::FieldKind::kMulti, .separator = ", "},
                                          {.name = "age", .kind = afm::FieldKind::kNumeric}}});
  const std::array<std::string_view, 3> values = {"a", "b", "drama"};
  const std::array<int64_t, 3> counts = {3, 2, 1};
  const std::array<double, 2> ages = {30, 40};
  builder.add_counts(0, values, counts);
  builder.add_counts(1, values, counts);
  builder.add_longest(1, 2);
  builder.add_numbers(2, ages);
  const auto encoder = builder.build();
  encoder.save(work / "vocabulary.safetensors");
  for (const bool counted : {true, false}) {
    const afm::Schema schema = counted ? encoder.schema() : full_schema();
    afm::testing::write_split(work.path(), schema, afm::Split::kTrain, afm::testing::random_rows(schema, 4), 4);
    const std::array parts = {read_bytes(work / "schema.json"), read_bytes(work / "train-00000.safetensors"),
                              counted ? read_bytes(work / "vocabulary.safetensors") : "", std::string("a, drama, ?")};
    write_bytes(folder / (counted ? "counted" : "hashed"), afm::fuzz::join_parts(parts));
  }
}

void write_models(const path& folder) {
  const afm::Schema schema = afm::testing::ids_only_schema();
  constexpr std::string_view kOptions = R"({"embedding_dim": 4, "hidden": [3, 2]})";
  for (const std::string& name : afm::models::model_names()) {
    afm::save_model(*afm::models::make_model(name, kOptions, schema), folder / name);
    afm::RankPlan plan = afm::plan_from_json(kPlan);
    if (name == "dcn") plan["embedding"].joint = false;
    const auto compressed = afm::models::make_model(name, kOptions, schema, plan);
    afm::save_model(*compressed, folder / (name + "_compressed"));
    plan["embedding"].bits = afm::Bits::kFloat;
    const auto folded = afm::models::make_model(name, kOptions, schema, plan)->folded().model;
    afm::save_model(*folded, folder / (name + "_folded"));
  }
  const auto with_numbers = afm::models::make_model("dcn", R"({"embedding_dim": 2, "hidden": [], "cross": "matrix"})",
                                                    afm::testing::mixed_schema());
  afm::save_model(*with_numbers, folder / "cross");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const path folder = argv[1];
  write_scorer_models(seeds_of(folder, "scorer"));
  write_requests(seeds_of(folder, "requests"));
  write_json(seeds_of(folder, "json"));
  write_datasets(seeds_of(folder, "dataset"));
  write_models(seeds_of(folder, "model"));
  write_models(seeds_of(folder, "safetensors"));
  return 0;
}
