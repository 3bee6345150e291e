#include <stdexcept>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <nlohmann/json.hpp>

#include "libafm/compress/factorize.h"
#include "libafm/compress/plan.h"
#include "libafm/compress/statistics.h"
#include "libafm/core/error.h"
#include "libafm/core/tensors.h"
#include "libafm/nn/model_file.h"
#include "tests/compress/ranker.h"
#include "tests/core/temporary_folder.h"

namespace afm::testing {
namespace {

using Catch::Matchers::ContainsSubstring;

Statistics saved_statistics() { return statistics_of(make_ranker(), make_ids(200), {.whole_training_set = true}); }

TEST_CASE("statistics from a file give the same plan and bitwise the same factors") {
  const TemporaryFolder folder;
  const auto statistics = saved_statistics();
  statistics.save(folder / "statistics.safetensors");
  const auto loaded = Statistics::load(folder / "statistics.safetensors");
  CHECK(loaded.rows == statistics.rows);
  CHECK(loaded.unreached == statistics.unreached);
  CHECK(loaded.whole_training_set);
  CHECK(loaded.layers.at("tower.narrow").bias == false);
  CHECK(loaded.layers.at("embedding").wide);

  const PlanOptions options{.bytes = statistics.bytes / 2, .activation = FactorActivation::kShiftedRelu};
  const auto plan = plan_ranks(statistics, options);
  REQUIRE(plan.size() > 1);
  CHECK((plan_ranks(loaded, options) == plan));

  auto one = make_ranker(), other = make_ranker();
  factorize_(*one, statistics, plan);
  factorize_(*other, loaded, plan);
  const auto state = state_of(*one);
  for (const auto& [name, tensor] : state_of(*other)) CHECK(torch::equal(tensor, state.at(name)));
}

void check_equal(const Moments& got, const Moments& wanted) {
  CHECK(got.count() == wanted.count());
  CHECK(got.skipped() == wanted.skipped());
  CHECK(torch::equal(got.mean(), wanted.mean()));
  CHECK(torch::equal(got.scatter(), wanted.scatter()));
}

TEST_CASE("metric, input moments, joint moments and id blocks come back bit for bit") {
  const TemporaryFolder folder;
  const auto statistics = statistics_of(make_ranker(), make_ids(200), {.metric = true, .input_moments = true});
  statistics.save(folder / "statistics.safetensors");
  const auto loaded = Statistics::load(folder / "statistics.safetensors");
  for (const auto& [path, wanted] : statistics.layers) {
    const LayerStatistics& got = loaded.layers.at(path);
    REQUIRE(got.metric.size() == wanted.output.size());
    REQUIRE(got.joint.size() == wanted.joint.size());
    REQUIRE(got.id_blocks.size() == wanted.id_blocks.size());
    for (std::size_t i = 0; i < wanted.metric.size(); ++i) CHECK(torch::equal(got.metric[i], wanted.metric[i]));
    for (std::size_t j = 0; j < wanted.joint.size(); ++j) check_equal(got.joint[j], wanted.joint[j]);
    for (std::size_t j = 0; j < wanted.id_blocks.size(); ++j) {
      REQUIRE(got.id_blocks[j].size() == wanted.id_blocks[j].size());
      for (std::size_t g = 0; g < wanted.id_blocks[j].size(); ++g) {
        CHECK(got.id_blocks[j][g].begin == wanted.id_blocks[j][g].begin);
        CHECK(got.id_blocks[j][g].end == wanted.id_blocks[j][g].end);
        check_equal(got.id_blocks[j][g].rows, wanted.id_blocks[j][g].rows);
      }
    }
    if (!wanted.is_embedding) check_equal(got.input, wanted.input);
  }
}

// A statistics file with one thing changed, and what load() says about it.
template <typename Change>
std::string refusal(Change change) {
  const TemporaryFolder folder;
  const auto path = folder / "statistics.safetensors";
  saved_statistics().save(path);
  const auto file = SafetensorsFile::open(path);
  auto metadata = file.metadata();
  auto tensors = read_tensors(file);
  std::erase_if(metadata, [](const auto& item) { return item.first.starts_with("afm."); });
  change(metadata, tensors);
  save_tensors(path, metadata, tensors);
  const auto message = message_of<FormatError>([&] { Statistics::load(path); });
  if (!message.empty()) CHECK_THAT(message, ContainsSubstring(path.string()));
  return message;
}

TEST_CASE("a statistics file that was not changed loads") {
  CHECK(refusal([](auto&, auto&) {}).empty());
}

TEST_CASE("a file of version 1, which lacks what came later, loads") {
  const std::vector<std::string> later = {"metric", "input", "joint", "blocks"};
  CHECK(refusal([&](auto& metadata, auto& tensors) {
          metadata["version"] = "1";
          auto text = nlohmann::json::parse(metadata["statistics"]);
          for (auto& layer : text["layers"]) {
            for (const std::string& key : later) layer.erase(key);
          }
          metadata["statistics"] = text.dump();
          std::erase_if(tensors, [](const auto& item) {
            return item.first.find("/joint_") != std::string::npos || item.first.find("/block_") != std::string::npos;
          });
        }).empty());
}

TEST_CASE("bad blocks of ids and metrics are refused by name") {
  const auto set_end = [](auto& tensors, int64_t block, int64_t end) {
    auto& ends = tensors["embedding/block_ends.1"];
    ends = ends.clone();
    ends[block] = end;
  };
  CHECK_THAT(refusal([&](auto&, auto& tensors) { set_end(tensors, 2, 2); }),
             ContainsSubstring("tensor 'embedding/block_ends.1' must ascend from at least 1, got 2 after 2"));
  CHECK_THAT(refusal([&](auto&, auto& tensors) { set_end(tensors, -1, 10); }),
             ContainsSubstring("tensor 'embedding/block_ends.1' must end with 9, got 10"));
  CHECK_THAT(refusal([](auto&, auto& tensors) { tensors.erase("embedding/joint_mean.0"); }),
             ContainsSubstring("it lacks tensor 'embedding/joint_mean.0'"));
  CHECK_THAT(refusal([](auto& metadata, auto& tensors) {
               auto text = nlohmann::json::parse(metadata["statistics"]);
               text["layers"]["head"]["metric"] = true;
               metadata["statistics"] = text.dump();
               tensors["head/metric.0"] = torch::full({1, 1}, NAN, torch::kDouble);
             }),
             ContainsSubstring("tensor 'head/metric.0' must be finite"));
}

TEST_CASE("a file of another kind or version is refused") {
  CHECK_THAT(refusal([](auto& metadata, auto&) { metadata["kind"] = "afm-model"; }),
             ContainsSubstring("is no statistics file: its kind must be 'afm-statistics', got 'afm-model'"));
  CHECK_THAT(refusal([](auto& metadata, auto&) { metadata["version"] = "3"; }),
             ContainsSubstring("has version 3, this libafm reads up to 2; upgrade"));
}

TEST_CASE("a statistics file with a missing, surplus or misshapen tensor is refused by name") {
  CHECK_THAT(refusal([](auto&, auto& tensors) { tensors.erase("head/mean.0"); }),
             ContainsSubstring("has bad statistics: it lacks tensor 'head/mean.0'"));
  CHECK_THAT(refusal([](auto&, auto& tensors) { tensors["head/more"] = torch::ones({1}); }),
             ContainsSubstring("it has tensor 'head/more', which belongs to no layer"));
  CHECK_THAT(refusal([](auto&, auto& tensors) { tensors["head/mean.0"] = torch::ones({2}, torch::kDouble); }),
             ContainsSubstring("tensor 'head/mean.0' must be Double [1], got Double [2]"));
  CHECK_THAT(refusal([](auto&, auto& tensors) { tensors["head/count"] = torch::tensor({-1.0}, torch::kDouble); }),
             ContainsSubstring("Moments.count must be finite and at least 0, got -1"));
  CHECK_THAT(refusal([](auto&, auto& tensors) { tensors["head/radius"] = torch::tensor(-1.0, torch::kDouble); }),
             ContainsSubstring("layer 'head' must have a finite radius and input mean"));
}

TEST_CASE("a statistics file whose description is damaged is refused") {
  CHECK_THAT(refusal([](auto& metadata, auto&) { metadata["statistics"] = "{"; }),
             ContainsSubstring("has bad statistics: "));
  CHECK_THAT(refusal([](auto& metadata, auto&) { metadata["statistics"] = "{}"; }),
             ContainsSubstring("has bad statistics: "));
  CHECK_THAT(refusal([](auto& metadata, auto&) { metadata.erase("statistics"); }), ContainsSubstring("statistics"));
}

TEST_CASE("a flipped bit in a statistics file is refused") {
  const TemporaryFolder folder;
  const auto path = folder / "statistics.safetensors";
  saved_statistics().save(path);
  auto bytes = read_bytes(path);
  bytes[bytes.size() - 100] ^= 1;
  write_bytes(path, bytes);
  CHECK_THROWS_AS(Statistics::load(path), FormatError);
}

}  // namespace
}  // namespace afm::testing
