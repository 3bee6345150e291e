#include "libafm/data/dataset.h"

#include <catch2/catch_test_macros.hpp>

#include "tests/core/temporary_folder.h"
#include "tests/data/random_rows.h"

namespace afm {
namespace {

using testing::ids_only_schema;
using testing::message_of;
using testing::mixed_schema;
using testing::numbers_only_schema;
using testing::random_rows;
using testing::same_rows;
using testing::select;
using testing::slice;
using testing::TemporaryFolder;
using testing::write_split;

struct Case {
  Schema schema;
  int64_t rows, rows_per_shard;
};

// One shard, many, shards of one row, and a last shard that is full.
std::vector<Case> cases() {
  std::vector<Case> all;
  for (const auto& schema : {mixed_schema(), ids_only_schema(), numbers_only_schema()}) {
    for (const auto& [rows, rows_per_shard] : {std::pair{1, 10}, {57, 1000}, {57, 10}, {60, 20}, {9, 1}}) {
      all.push_back({schema, rows, rows_per_shard});
    }
  }
  return all;
}

TEST_CASE("a split is opened as it was written, in one shard or many") {
  at::manual_seed(1);
  for (const auto& [schema, count, rows_per_shard] : cases()) {
    INFO(count << " rows, " << rows_per_shard << " in a shard, " << schema.fields.size() << " fields");
    const TemporaryFolder folder;
    const auto rows = random_rows(schema, count);
    write_split(folder.path(), schema, Split::kTrain, rows, rows_per_shard);
    CHECK(folder.file_count() == (count + rows_per_shard - 1) / rows_per_shard + 1);
    const auto dataset = Dataset::open(folder.path(), Split::kTrain);
    CHECK(dataset.size() == count);
    CHECK(dataset.schema() == schema);
    CHECK(dataset.device() == at::kCPU);
    const auto read = dataset.range(0, count);
    CHECK(same_rows(read, rows));
    CHECK(read.ids.scalar_type() == at::kInt);
    CHECK(read.dense.sizes() == at::IntArrayRef({count, schema.dense_count()}));
    CHECK(dataset.click_rate() == rows.label.mean(at::kDouble).item<double>());
  }
}

TEST_CASE("rows in any order, with repeats, are those of a single shard") {
  at::manual_seed(2);
  for (const auto& [schema, count, rows_per_shard] : cases()) {
    INFO(count << " rows, " << rows_per_shard << " in a shard, " << schema.fields.size() << " fields");
    const TemporaryFolder folder;
    const auto rows = random_rows(schema, count);
    write_split(folder.path(), schema, Split::kTest, rows, rows_per_shard);
    const auto dataset = Dataset::open(folder.path(), Split::kTest);
    for (const int64_t size : {0, 1, 7, 200}) {
      const auto index = at::randint(count, {size}, at::kLong);
      CHECK(same_rows(dataset.rows(index), select(rows, index)));
    }
    CHECK(same_rows(dataset.rows(at::arange(count).flip(0)), select(rows, at::arange(count).flip(0))));
  }
}

TEST_CASE("ranges run over the borders of shards") {
  at::manual_seed(3);
  const TemporaryFolder folder;
  const auto rows = random_rows(mixed_schema(), 23);
  write_split(folder.path(), mixed_schema(), Split::kValid, rows, 5);
  const auto dataset = Dataset::open(folder.path(), Split::kValid);
  for (int64_t begin = 0; begin <= 23; ++begin) {
    for (int64_t end = begin; end <= 23; ++end) {
      const auto found = dataset.range(begin, end);
      if (!same_rows(found, slice(rows, begin, end))) FAIL("rows " << begin << " to " << end);
    }
  }
}

TEST_CASE("a range within one shard is a view") {
  at::manual_seed(4);
  const auto dataset = Dataset::from_tensors(mixed_schema(), random_rows(mixed_schema(), 10));
  CHECK(dataset.range(2, 9).ids.const_data_ptr() == dataset.range(2, 3).ids.const_data_ptr());
}

TEST_CASE("rows and ranges outside the dataset are refused") {
  at::manual_seed(5);
  const TemporaryFolder folder;
  write_split(folder.path(), mixed_schema(), Split::kTrain, random_rows(mixed_schema(), 10), 4);
  const auto dataset = Dataset::open(folder.path(), Split::kTrain);
  const auto rows = [&](std::vector<int64_t> index) {
    return message_of<std::out_of_range>([&] { (void)dataset.rows(at::tensor(index)); });
  };
  CHECK(rows({0, 9}).empty());
  CHECK(rows({0, 10}) == "Dataset.rows: row 10 is out of range, there are 10");
  CHECK(rows({-1, 3}) == "Dataset.rows: row -1 is out of range, there are 10");
  const auto range = [&](int64_t begin, int64_t end) {
    return message_of<std::out_of_range>([&] { (void)dataset.range(begin, end); });
  };
  CHECK(range(10, 10).empty());
  CHECK(range(-1, 3) == "Dataset.range: [-1, 3) is out of range, there are 10 rows");
  CHECK(range(0, 11) == "Dataset.range: [0, 11) is out of range, there are 10 rows");
  CHECK(range(4, 3) == "Dataset.range: [4, 3) is out of range, there are 10 rows");
}

TEST_CASE("a dataset of tensors takes int64 ids, float64 numbers, and labels of any type") {
  at::manual_seed(6);
  const auto rows = random_rows(mixed_schema(), 12);
  const auto dataset = Dataset::from_tensors(
      mixed_schema(),
      {.ids = rows.ids.to(at::kLong), .dense = rows.dense.to(at::kDouble), .label = rows.label.to(at::kBool)});
  const auto found = dataset.range(0, 12);
  CHECK(same_rows(found, rows));
  CHECK(found.ids.scalar_type() == at::kInt);
}

TEST_CASE("without numeric fields the dense part may be left out, without ids the ids") {
  at::manual_seed(7);
  const auto with_ids = random_rows(ids_only_schema(), 6);
  const auto ids =
      Dataset::from_tensors(ids_only_schema(), {.ids = with_ids.ids, .dense = {}, .label = with_ids.label});
  CHECK(same_rows(ids.range(0, 6), with_ids));
  const auto with_numbers = random_rows(numbers_only_schema(), 6);
  const auto numbers = Dataset::from_tensors(numbers_only_schema(),
                                             {.ids = {}, .dense = with_numbers.dense, .label = with_numbers.label});
  CHECK(same_rows(numbers.range(0, 6), with_numbers));
  CHECK(numbers.size() == 6);
}

TEST_CASE("a dataset that is moved is whole, in one shard") {
  at::manual_seed(8);
  const TemporaryFolder folder;
  const auto rows = random_rows(mixed_schema(), 23);
  write_split(folder.path(), mixed_schema(), Split::kTrain, rows, 5);
  const auto moved = Dataset::open(folder.path(), Split::kTrain).to(at::kCPU);
  CHECK(same_rows(moved.range(0, 23), rows));
  CHECK(moved.range(0, 23).ids.const_data_ptr() == moved.range(0, 1).ids.const_data_ptr());
}

}  // namespace
}  // namespace afm
