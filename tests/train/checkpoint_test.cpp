#include "libafm/train/checkpoint.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>

#include <torch/torch.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "libafm/core/error.h"
#include "libafm/train/trainer.h"
#include "tests/train/planted.h"

using afm::TrainOptions;
using afm::testing::fresh_network;
using afm::testing::Network;
using afm::testing::planted_clicks;
using afm::testing::same_bytes;
using afm::testing::ScratchFile;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::Message;
using Catch::Matchers::MessageMatches;

namespace {

// A run of one epoch that left a checkpoint.
class Left {
 public:
  Left() { afm::train(*fresh_network(), rows, rows, options); }

  std::string name() const { return "checkpoint '" + file.string() + "'"; }
  TrainOptions resuming() const {
    auto resumed = options;
    resumed.resume = true;
    return resumed;
  }

  ScratchFile file{"checkpoint.safetensors"};
  afm::Dataset rows = planted_clicks(400, 1).dataset;
  TrainOptions options{.epochs = 1, .batch_size = 100, .checkpoint = file.string()};
};

// Resumes on a fresh model and expects the sentence; the model must stay as it was.
template <typename Exception, typename Matcher>
void check_refused(const Left& left, const TrainOptions& options, const Matcher& sentence) {
  const auto network = fresh_network(), untouched = fresh_network();
  CHECK_THROWS_MATCHES(afm::train(*network, left.rows, left.rows, options), Exception, sentence);
  CHECK(same_bytes(*network, *untouched));
}

}  // namespace

TEST_CASE("a run with another option is refused by name and both values") {
  const Left left;
  auto options = left.resuming();
  options.batch_size = 50;
  check_refused<std::invalid_argument>(
      left, options, Message("TrainOptions.batch_size must be 100 to go on from " + left.name() + ", got 50"));
  options = left.resuming();
  options.schedule = afm::Schedule::kConstant;
  check_refused<std::invalid_argument>(
      left, options, Message("TrainOptions.schedule must be plateau to go on from " + left.name() + ", got constant"));
}

TEST_CASE("options that decide no number may differ") {
  const Left left;
  auto options = left.resuming();
  options.checkpoint_seconds = 5;
  options.epochs = 2;
  CHECK(afm::train(*fresh_network(), left.rows, left.rows, options).epochs.size() == 2);
}

TEST_CASE("the end of a linear schedule cannot move") {
  Left left;
  left.options.schedule = afm::Schedule::kLinear;
  afm::train(*fresh_network(), left.rows, left.rows, left.options);
  auto options = left.resuming();
  options.epochs = 2;
  check_refused<std::invalid_argument>(
      left, options, Message("TrainOptions.epochs must be 1 to go on from " + left.name() + ", got 2"));
}

TEST_CASE("another model, teacher or dataset is refused") {
  const Left left;
  const auto options = left.resuming();
  CHECK_THROWS_MATCHES(
      afm::train(*fresh_network(16), left.rows, left.rows, options), afm::DataError,
      Message(left.name() + R"( belongs to another run: its options must be {"width":16}, got {"width":8})"));
  afm::testing::Logistic other;
  CHECK_THROWS_MATCHES(afm::train(other, left.rows, left.rows, options), afm::DataError,
                       Message(left.name() + " belongs to another run: its model must be logistic, got network"));
  const auto factorized = fresh_network();
  factorized->hidden->reshape({.ranks = {2}});
  CHECK_THROWS_MATCHES(afm::train(*factorized, left.rows, left.rows, options), afm::DataError,
                       MessageMatches(ContainsSubstring("belongs to another run: its ranks must be")));
  auto taught = options;
  taught.teachers = {fresh_network()};
  check_refused<afm::DataError>(left, taught,
                                MessageMatches(ContainsSubstring("belongs to another run: its teachers must be")));
  const auto fewer = planted_clicks(300, 1).dataset;
  CHECK_THROWS_MATCHES(afm::train(*fresh_network(), fewer, left.rows, options), afm::DataError,
                       Message(left.name() + " belongs to another run: its training rows must be 300, got 400"));
}

TEST_CASE("a damaged, truncated or foreign checkpoint is refused") {
  const Left left;
  const auto size = std::filesystem::file_size(left.file.path());
  {
    std::fstream file(left.file.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(size) - 20);
    file.put('\x55').put('\x66').put('\x77');
  }
  check_refused<afm::FormatError>(left, left.resuming(), MessageMatches(ContainsSubstring(left.file.string())));
  std::filesystem::resize_file(left.file.path(), size / 2);
  check_refused<afm::FormatError>(left, left.resuming(), MessageMatches(ContainsSubstring(left.file.string())));
  afm::save_model(*fresh_network(), left.file.path());
  check_refused<afm::FormatError>(left, left.resuming(),
                                  Message("'" + left.file.string() + "' is no checkpoint of libafm"));
}

TEST_CASE("a checkpoint of a newer version or with a damaged position is refused") {
  const Left left;
  const auto file = afm::SafetensorsFile::open(left.file.path());
  const auto rewrite = [&](const std::string& key, const std::string& value) {
    auto metadata = file.metadata();
    metadata[key] = value;
    afm::save_tensors(left.file.path(), metadata, afm::read_tensors(file));
  };
  rewrite("version", "2");
  check_refused<afm::FormatError>(
      left, left.resuming(),
      Message("'" + left.file.string() + "' must have version 1, got 2; a newer libafm may have written it"));
  rewrite("position", R"({"batch": 0})");
  check_refused<afm::FormatError>(left, left.resuming(), MessageMatches(ContainsSubstring("has a damaged 'position'")));
  rewrite("position", R"({"history": {"best_epoch": 9, "stopped_early": false, "epochs": []}, "batch": 0,
                          "learning_rate": 1, "seconds": 0})");
  check_refused<afm::FormatError>(
      left, left.resuming(),
      Message("'" + left.file.string() + "' has a damaged 'position': a number is out of range"));
}

TEST_CASE("a checkpoint in which a tensor is missing leaves the model as it was") {
  const Left left;
  const auto file = afm::SafetensorsFile::open(left.file.path());
  for (const char* name :
       {"optimizer/head.weight.mean", "best/head.weight", "model/head.weight", "random/cpu", "loss_sum"}) {
    auto tensors = afm::read_tensors(file);
    REQUIRE(tensors.erase(name) == 1);
    afm::save_tensors(left.file.path(), file.metadata(), tensors);
    CAPTURE(name);
    check_refused<afm::FormatError>(left, left.resuming(), MessageMatches(ContainsSubstring("'")));
  }
}
