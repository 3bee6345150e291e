// What DatasetWriter leaves in a folder, and what Dataset::open makes of folders that were tampered with.

#include <algorithm>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "libafm/core/error.h"
#include "libafm/data/dataset.h"
#include "tests/core/temporary_folder.h"
#include "tests/data/random_rows.h"

namespace afm {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::EndsWith;
using Catch::Matchers::StartsWith;
using testing::message_of;
using testing::mixed_schema;
using testing::random_rows;
using testing::read_bytes;
using testing::same_rows;
using testing::slice;
using testing::TemporaryFolder;
using testing::write_bytes;
using testing::write_split;

constexpr std::string_view kShards[] = {"train-00000.safetensors", "train-00001.safetensors",
                                        "train-00002.safetensors"};

// A folder with a train split of 9 rows in 3 shards.
struct Clicks {
  explicit Clicks(int64_t seed) {
    at::manual_seed(seed);
    rows = random_rows(mixed_schema(), 9);
    write_split(folder.path(), mixed_schema(), Split::kTrain, rows, 3);
  }
  Dataset open() const { return Dataset::open(folder.path(), Split::kTrain); }
  bool holds(const Batch& expected) const { return same_rows(open().range(0, expected.rows()), expected); }
  template <typename Exception>
  std::string refusal() const {
    return message_of<Exception>([&] { open(); });
  }

  TemporaryFolder folder;
  Batch rows;
};

TEST_CASE("rows may be appended in any pieces") {
  at::manual_seed(1);
  for (const int64_t rows_per_shard : {1, 7, 1000}) {
    const TemporaryFolder folder;
    const auto rows = random_rows(mixed_schema(), 60);
    DatasetWriter writer(folder.path(), mixed_schema(), Split::kTrain, rows_per_shard);
    for (int64_t begin = 0, end = 0; begin < 60; begin = end) {
      end = std::min(begin + at::randint(0, 25, {1}).item<int64_t>(), int64_t{60});
      writer.append(slice(rows, begin, end));
    }
    CHECK(writer.finish() == 60);
    write_schema(folder / "schema.json", mixed_schema());
    CHECK(same_rows(Dataset::open(folder.path(), Split::kTrain).range(0, 60), rows));
    CHECK(folder.file_count() == (60 + rows_per_shard - 1) / rows_per_shard + 1);
  }
}

TEST_CASE("appended rows are copied") {
  at::manual_seed(2);
  const TemporaryFolder folder;
  const auto rows = random_rows(mixed_schema(), 4);
  const auto before = slice(rows, 0, 4);
  write_schema(folder / "schema.json", mixed_schema());
  DatasetWriter writer(folder.path(), mixed_schema(), Split::kTrain);
  writer.append(rows);
  rows.ids.zero_();
  rows.label.zero_();
  writer.finish();
  CHECK(same_rows(Dataset::open(folder.path(), Split::kTrain).range(0, 4), before));
}

TEST_CASE("a new split replaces the earlier one, shards beyond its own included") {
  const Clicks clicks(3);
  const auto rows = random_rows(mixed_schema(), 4);
  write_split(clicks.folder.path(), mixed_schema(), Split::kValid, rows, 3);
  write_split(clicks.folder.path(), mixed_schema(), Split::kTrain, rows, 100);
  CHECK(clicks.holds(rows));
  CHECK(clicks.folder.file_count() == 1 + 1 + 2);  // schema, train, valid
  CHECK(Dataset::open(clicks.folder.path(), Split::kValid).size() == 4);
}

TEST_CASE("without finish nothing is visible and the earlier split stays") {
  const Clicks clicks(4);
  const auto files = clicks.folder.file_count();
  {
    DatasetWriter writer(clicks.folder.path(), mixed_schema(), Split::kTrain, 2);
    writer.append(random_rows(mixed_schema(), 20));
    CHECK(clicks.holds(clicks.rows));
  }
  CHECK(clicks.folder.file_count() == files);
  CHECK(clicks.holds(clicks.rows));
  CHECK(clicks.open().size() == 9);
}

TEST_CASE("rows that are refused leave the writer as it was") {
  const Clicks clicks(5);
  auto wrong = random_rows(mixed_schema(), 5);
  wrong.label[4] = 2;
  DatasetWriter writer(clicks.folder.path(), mixed_schema(), Split::kTrain, 4);
  writer.append(clicks.rows);
  CHECK(message_of<DataError>([&] { writer.append(wrong); }) == "train split: row 13: label must be 0 or 1, got 2");
  CHECK(writer.finish() == 9);
  CHECK(clicks.holds(clicks.rows));
  CHECK(clicks.open().size() == 9);
}

TEST_CASE("a split that cannot be put in place is an IoError that leaves no temporary files") {
  const Clicks clicks(6);
  std::filesystem::remove(clicks.folder / kShards[1]);
  std::filesystem::create_directory(clicks.folder / kShards[1]);
  {
    DatasetWriter writer(clicks.folder.path(), mixed_schema(), Split::kTrain, 3);
    writer.append(random_rows(mixed_schema(), 9));
    CHECK_THAT(message_of<IoError>([&] { writer.finish(); }),
               StartsWith("cannot write '" + (clicks.folder / kShards[1]).string() + "': "));
  }
  CHECK(clicks.folder.file_count() == 4);
  CHECK_THROWS_AS(clicks.open(), Error);
}

TEST_CASE("a writer refuses bad options, an uncounted schema and an empty split") {
  const TemporaryFolder folder;
  CHECK(message_of<std::invalid_argument>([&] { DatasetWriter(folder.path(), mixed_schema(), Split::kTest, 0); }) ==
        "DatasetWriter.rows_per_shard must be at least 1, got 0");
  CHECK_THROWS_AS(DatasetWriter(folder.path(), {.fields = {{.name = "x"}}}, Split::kTest), DataError);
  write_bytes(folder / "file", "");
  CHECK_THAT(message_of<IoError>([&] { DatasetWriter(folder / "file", mixed_schema(), Split::kTest); }),
             StartsWith("cannot make the folder '"));
  DatasetWriter writer(folder.path(), mixed_schema(), Split::kTest);
  writer.append(random_rows(mixed_schema(), 0));
  CHECK(message_of<DataError>([&] { writer.finish(); }) == "the test split has no rows");
  writer.append(random_rows(mixed_schema(), 3));
  CHECK(writer.finish() == 3);
  CHECK(message_of<Error>([&] { writer.finish(); }) == "DatasetWriter.finish was called already");
}

TEST_CASE("a split or a shard that is missing is named") {
  const Clicks clicks(7);
  CHECK_THAT(message_of<DataError>([&] { Dataset::open(clicks.folder.path(), Split::kTest); }),
             ContainsSubstring(" has no test split: "));
  std::filesystem::remove(clicks.folder / kShards[1]);
  CHECK(clicks.refusal<FormatError>() ==
        (clicks.folder / kShards[1]).string() + " is missing: the train split goes on after shard 0");
  std::filesystem::remove(clicks.folder / "schema.json");
  CHECK_THAT(clicks.refusal<DataError>(),
             ContainsSubstring("is no dataset folder") && ContainsSubstring("schema.json is missing"));
}

TEST_CASE("shards of two writes are no split") {
  for (const auto shard : kShards) {
    const Clicks clicks(8), others(9);
    write_bytes(clicks.folder / shard, read_bytes(others.folder / shard));
    INFO(shard);
    CHECK_THAT(clicks.refusal<FormatError>(),
               EndsWith(" does not belong to the shard before it; prepare the dataset again"));
  }
}

TEST_CASE("a shard in the place of another, or of another split, is refused") {
  const Clicks clicks(10);
  const auto first = clicks.folder / kShards[0];
  write_bytes(first, read_bytes(clicks.folder / kShards[1]));
  CHECK(clicks.refusal<FormatError>() == first.string() + ": shard must be '0', got '1'");
  write_split(clicks.folder.path(), mixed_schema(), Split::kValid, clicks.rows, 3);
  write_bytes(first, read_bytes(clicks.folder / "valid-00000.safetensors"));
  CHECK(clicks.refusal<FormatError>() == first.string() + ": split must be 'train', got 'valid'");
}

TEST_CASE("a truncated shard is refused") {
  const Clicks clicks(11);
  const auto bytes = read_bytes(clicks.folder / kShards[1]);
  for (std::size_t length = 0; length < bytes.size(); length += 13) {
    write_bytes(clicks.folder / kShards[1], bytes.substr(0, length));
    INFO(length << " bytes");
    CHECK_THAT(clicks.refusal<FormatError>(), ContainsSubstring((clicks.folder / kShards[1]).string()));
  }
}

TEST_CASE("a shard with any one bit flipped is refused or the same") {
  const Clicks clicks(12);
  for (const auto shard : {kShards[0], kShards[2]}) {
    const auto bytes = read_bytes(clicks.folder / shard);
    int refused = 0;
    for (std::size_t place = 0; place < bytes.size(); ++place) {
      auto damaged = bytes;
      damaged[place] = static_cast<char>(damaged[place] ^ (1 << place % 8));
      write_bytes(clicks.folder / shard, damaged);
      INFO(shard << ", byte " << place);
      try {
        const auto dataset = clicks.open();
        CHECK((dataset.size() == 9 && same_rows(dataset.range(0, 9), clicks.rows)));
      } catch (const Error&) {
        ++refused;
      }
    }
    CHECK(refused > static_cast<int>(bytes.size()) / 2);
    write_bytes(clicks.folder / shard, bytes);
  }
}

}  // namespace
}  // namespace afm
