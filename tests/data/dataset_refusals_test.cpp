// Rows that break a rule are refused at each door: tensors, the writer, and files with a valid checksum.

#include <cmath>
#include <functional>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "libafm/core/error.h"
#include "libafm/core/safetensors.h"
#include "libafm/core/tensors.h"
#include "libafm/data/dataset.h"
#include "libafm/data/shard_file.h"
#include "tests/core/temporary_folder.h"
#include "tests/data/random_rows.h"

namespace afm {
namespace {

using Catch::Matchers::EndsWith;
using testing::ids_only_schema;
using testing::message_of;
using testing::mixed_schema;
using testing::random_rows;
using testing::slice;
using testing::TemporaryFolder;
using testing::write_split;

constexpr int64_t kRows = 8;

Batch rows_with(const std::function<void(Batch&)>& change) {
  at::manual_seed(1);
  auto rows = random_rows(mixed_schema(), kRows);
  change(rows);
  return rows;
}

std::string refusal_of(const Schema& schema, const Batch& rows) {
  return message_of<DataError>([&] { Dataset::from_tensors(schema, rows); });
}

std::string refusal_of(const std::function<void(Batch&)>& change) {
  return refusal_of(mixed_schema(), rows_with(change));
}

// The rows as one shard whose checksum and digest are right.
std::string refusal_of_file(const Batch& rows) {
  const TemporaryFolder folder;
  write_schema(folder / "schema.json", mixed_schema());
  write_shard_file(shard_path(folder.path(), Split::kTrain, 0), mixed_schema(), Split::kTrain, 0,
                   {.rows = rows, .last = true, .digest = digest_of("", rows), .previous = ""});
  auto text = message_of<Error>([&] { Dataset::open(folder.path(), Split::kTrain); });
  const auto path = shard_path(folder.path(), Split::kTrain, 0).string();
  if (!text.empty()) REQUIRE(text.starts_with(path + ": "));
  return text.empty() ? text : text.substr(path.size() + 2);
}

std::string refusal_of_append(const Batch& rows) {
  const TemporaryFolder folder;
  DatasetWriter writer(folder.path(), mixed_schema(), Split::kValid, 3);
  writer.append(random_rows(mixed_schema(), 100));
  return message_of<DataError>([&] { writer.append(rows); });
}

TEST_CASE("an id out of range is named with its field, its range and its row, at each door") {
  struct Wrong {
    int64_t row, slot, id;
    std::string rest;
  };
  for (const auto& [row, slot, id, rest] : {Wrong{2, 0, 50, "field 'user' has id 50, its ids are 0 to 49"},
                                            Wrong{0, 0, -1, "field 'user' has id -1, its ids are 0 to 49"},
                                            Wrong{7, 3, 8, "field 'genres' has id 8, its ids are 0 to 7"},
                                            Wrong{5, 1, -2, "field 'genres' has id -2, its ids are 0 to 7"},
                                            Wrong{6, 4, 24, "field 'hour' has id 24, its ids are 0 to 23"}}) {
    const auto rows = rows_with([&](Batch& batch) { batch.ids[row][slot] = id; });
    const auto place = [&](int64_t before) { return "row " + std::to_string(before + row) + ": " + rest; };
    CHECK(refusal_of(mixed_schema(), rows) == "rows: " + place(0));
    CHECK(refusal_of_append(rows) == "valid split: " + place(100));
    CHECK(refusal_of_file(rows) == place(0));
  }
}

TEST_CASE("an int64 id that does not fit int32 is not taken for another") {
  for (const int64_t id : {int64_t{1} << 32, (int64_t{1} << 32) + 3, -(int64_t{1} << 32) + 3}) {
    CHECK(refusal_of([&](Batch& rows) {
            rows.ids = rows.ids.to(at::kLong);
            rows.ids[1][4] = id;
          }) == "rows: row 1: field 'hour' has id " + std::to_string(id) + ", its ids are 0 to 23");
  }
}

TEST_CASE("a label other than 0 and 1 is refused at each door") {
  for (const auto& [label, text] : {std::pair{0.5, "0.5"}, {-1.0, "-1"}, {double{NAN}, "nan"}}) {
    const auto rows = rows_with([&](Batch& batch) { batch.label[3] = label; });
    CHECK(refusal_of(mixed_schema(), rows) == std::string("rows: row 3: label must be 0 or 1, got ") + text);
    CHECK(refusal_of_append(rows) == std::string("valid split: row 103: label must be 0 or 1, got ") + text);
    CHECK(refusal_of_file(rows) == std::string("row 3: label must be 0 or 1, got ") + text);
  }
}

TEST_CASE("a dense value that is not finite is named with its field and row, at each door") {
  const auto nan = rows_with([](Batch& rows) { rows.dense[4][1] = NAN; });
  CHECK(refusal_of(mixed_schema(), nan) == "rows: row 4: field 'age' must be finite, got nan");
  CHECK(refusal_of_append(nan) == "valid split: row 104: field 'age' must be finite, got nan");
  CHECK(refusal_of_file(nan) == "row 4: field 'age' must be finite, got nan");
  CHECK(refusal_of([](Batch& rows) { rows.dense[2][0] = -INFINITY; }) ==
        "rows: row 2: field 'price' must be finite, got -inf");
  CHECK(refusal_of([](Batch& rows) {
          rows.dense = rows.dense.to(at::kDouble);
          rows.dense[0][0] = 1e300;  // beyond float32
        }) == "rows: row 0: field 'price' must be finite, got inf");
}

TEST_CASE("tensors of the wrong shape or type are refused") {
  CHECK(refusal_of([](Batch&) {}).empty());
  CHECK(refusal_of([](Batch& rows) { rows.ids = rows.ids.slice(1, 0, 4); }) ==
        "rows: ids must have shape [8, 5], got [8, 4]");
  CHECK(refusal_of([](Batch& rows) { rows.ids = at::Tensor(); }) == "rows: ids must have shape [8, 5], got [8, 0]");
  CHECK(refusal_of([](Batch& rows) { rows.dense = at::Tensor(); }) == "rows: dense must have shape [8, 2], got [8, 0]");
  CHECK(refusal_of([](Batch& rows) { rows.dense = rows.dense.slice(0, 0, 7); }) ==
        "rows: dense must have shape [8, 2], got [7, 2]");
  CHECK(refusal_of([](Batch& rows) { rows.label = rows.label.unsqueeze(1); }) ==
        "rows: label must have shape [8], got [8, 1]");
  CHECK(refusal_of([](Batch& rows) { rows.label = at::Tensor(); }) == "rows: rows must have labels");
  CHECK(refusal_of([](Batch& rows) { rows.ids = rows.ids.to(at::kFloat); }) ==
        "rows: ids must be int32 or int64, got Float");
}

TEST_CASE("a dataset without rows and one of an uncounted schema are refused") {
  CHECK(refusal_of(mixed_schema(), random_rows(mixed_schema(), 0)) == "rows: a dataset must have at least one row");
  auto schema = mixed_schema();
  schema.fields[0].cardinality = 0;
  CHECK(refusal_of(schema, random_rows(mixed_schema(), 3)) ==
        "field 'user': cardinality must be in [1, 2147483647], got 0");
}

TEST_CASE("an empty split in a file is refused") {
  const TemporaryFolder folder;
  const auto rows = random_rows(mixed_schema(), 0);
  write_schema(folder / "schema.json", mixed_schema());
  write_shard_file(shard_path(folder.path(), Split::kTest, 0), mixed_schema(), Split::kTest, 0,
                   {.rows = rows, .last = true, .digest = digest_of("", rows), .previous = ""});
  CHECK(message_of<DataError>([&] { Dataset::open(folder.path(), Split::kTest); }) ==
        folder.path().string() + ": the test split has no rows");
}

TEST_CASE("a split of another schema is refused, one that only min_count or the label's name tells apart is not") {
  const TemporaryFolder folder;
  write_split(folder.path(), mixed_schema(), Split::kTrain, random_rows(mixed_schema(), 5), 2);
  auto schema = mixed_schema();
  schema.label = "click";
  schema.fields[0].min_count = 9;
  write_schema(folder / "schema.json", schema);
  CHECK(Dataset::open(folder.path(), Split::kTrain).size() == 5);
  schema.fields[0].cardinality = 51;
  write_schema(folder / "schema.json", schema);
  CHECK_THAT(message_of<DataError>([&] { Dataset::open(folder.path(), Split::kTrain); }),
             EndsWith(": was written for another schema than the schema.json beside it; prepare the dataset again"));
}

TEST_CASE("foreign and newer files, and tensors of other types, are refused") {
  const TemporaryFolder folder;
  write_split(folder.path(), ids_only_schema(), Split::kTrain, random_rows(ids_only_schema(), 5), 9);
  const auto path = shard_path(folder.path(), Split::kTrain, 0);
  const auto metadata = SafetensorsFile::open(path).metadata();
  const auto tensors = read_tensors(SafetensorsFile::open(path));
  const auto refusal = [&](const std::string& key, const std::string& value) {
    auto changed = metadata;
    changed[key] = value;
    save_tensors(path, changed, tensors);
    return message_of<FormatError>([&] { Dataset::open(folder.path(), Split::kTrain); });
  };
  CHECK(refusal("rows", "5").empty());
  CHECK_THAT(refusal("kind", "afm-model"), EndsWith(": kind must be 'afm-shard', got 'afm-model'"));
  CHECK_THAT(refusal("version", "999"), EndsWith("; use a matching libafm"));
  CHECK_THAT(refusal("rows", "6"), EndsWith(": rows must be '5', got '6'"));
  auto changed = tensors;
  changed["ids"] = changed["ids"].to(at::kLong);
  save_tensors(path, metadata, changed);
  CHECK_THAT(message_of<FormatError>([&] { Dataset::open(folder.path(), Split::kTrain); }),
             EndsWith(": ids must be Int, got Long"));
  changed.erase("ids");
  save_tensors(path, metadata, changed);
  CHECK_THAT(message_of<FormatError>([&] { Dataset::open(folder.path(), Split::kTrain); }),
             EndsWith("has no tensor 'ids'"));
}

}  // namespace
}  // namespace afm
