#include "libafm/data/batch_stream.h"

#include <algorithm>
#include <vector>

#include <catch2/catch_test_macros.hpp>

#include "tests/core/temporary_folder.h"
#include "tests/data/random_rows.h"

namespace afm {
namespace {

using testing::message_of;
using testing::mixed_schema;
using testing::random_rows;
using testing::same_rows;
using testing::TemporaryFolder;
using testing::write_split;

Dataset dataset_of(int64_t rows) {
  at::manual_seed(rows);
  return Dataset::from_tensors(mixed_schema(), random_rows(mixed_schema(), rows));
}

// The row numbers of what is left of the epoch, batch by batch; each batch must hold those rows.
std::vector<std::vector<int64_t>> rest_of_epoch(BatchStream& stream, const Dataset& dataset) {
  std::vector<std::vector<int64_t>> batches;
  for (int64_t position = stream.position(); auto batch = stream.next();) {
    REQUIRE(stream.position() == ++position);
    REQUIRE(same_rows(*batch, dataset.rows(stream.index())));
    const auto index = stream.index().contiguous();
    const auto* data = index.const_data_ptr<int64_t>();
    batches.emplace_back(data, data + index.numel());
  }
  REQUIRE_FALSE(stream.next().has_value());
  return batches;
}

auto epoch_of(const Dataset& dataset, const BatchOptions& options, int64_t epoch) {
  BatchStream stream(dataset, options);
  stream.start_epoch(epoch);
  return rest_of_epoch(stream, dataset);
}

std::vector<int64_t> sorted_rows(const std::vector<std::vector<int64_t>>& batches) {
  std::vector<int64_t> rows;
  for (const auto& batch : batches) rows.insert(rows.end(), batch.begin(), batch.end());
  std::sort(rows.begin(), rows.end());
  return rows;
}

TEST_CASE("each row comes once per epoch, in batches of the size asked for") {
  for (const int64_t rows : {1, 7, 64, 101}) {
    const auto dataset = dataset_of(rows);
    for (const int64_t batch_size : {1, 7, 32, 64, 1000}) {
      for (const bool shuffle : {true, false}) {
        INFO(rows << " rows, batches of " << batch_size);
        const auto batches = epoch_of(dataset, {.batch_size = batch_size, .shuffle = shuffle, .seed = 3}, 2);
        REQUIRE(std::ssize(batches) == (rows + batch_size - 1) / batch_size);
        for (std::size_t i = 0; i + 1 < batches.size(); ++i) CHECK(std::ssize(batches[i]) == batch_size);
        CHECK(std::ssize(batches.back()) == rows - (std::ssize(batches) - 1) * batch_size);
        const auto found = sorted_rows(batches);
        REQUIRE(std::ssize(found) == rows);
        for (int64_t row = 0; row < rows; ++row) CHECK(found[row] == row);
      }
    }
  }
}

TEST_CASE("without shuffle the rows come in order, each epoch") {
  const auto dataset = dataset_of(10);
  for (const int64_t epoch : {0, 1}) {
    CHECK(epoch_of(dataset, {.batch_size = 4, .shuffle = false, .seed = epoch}, epoch) ==
          std::vector<std::vector<int64_t>>{{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9}});
  }
}

TEST_CASE("the order is a function of seed and epoch alone") {
  const auto dataset = dataset_of(50);
  const BatchOptions options{.batch_size = 8, .seed = 1};
  const auto first = epoch_of(dataset, options, 0);
  at::manual_seed(99);  // nobody else's generator matters
  CHECK(epoch_of(dataset, options, 0) == first);
  CHECK(epoch_of(dataset, options, 1) != first);
  CHECK(epoch_of(dataset, {.batch_size = 8, .seed = 2}, 0) != first);
  CHECK(epoch_of(dataset, {.batch_size = 8, .seed = -1}, 0) != first);
  CHECK(epoch_of(dataset, {.batch_size = 8, .seed = 0}, 1) != first);
  BatchStream fresh(dataset, options);
  CHECK(rest_of_epoch(fresh, dataset) == first);  // starts at epoch 0
}

TEST_CASE("a stream leaves the global generator alone") {
  const auto dataset = dataset_of(50);
  at::manual_seed(5);
  const auto expected = at::rand({4});
  at::manual_seed(5);
  epoch_of(dataset, {.batch_size = 8}, 0);
  CHECK(at::equal(at::rand({4}), expected));
}

TEST_CASE("an epoch goes on exactly where it was left") {
  const auto dataset = dataset_of(50);
  for (const bool shuffle : {true, false}) {
    const BatchOptions options{.batch_size = 8, .shuffle = shuffle, .seed = 4};
    const auto whole = epoch_of(dataset, options, 6);
    for (int64_t batch = 0; batch <= std::ssize(whole); ++batch) {
      BatchStream stream(dataset, options);
      stream.start_epoch(6, batch);
      CHECK(stream.position() == batch);
      CHECK(rest_of_epoch(stream, dataset) == decltype(whole)(whole.begin() + batch, whole.end()));
    }
  }
}

TEST_CASE("an epoch may be started again, and another in its middle") {
  const auto dataset = dataset_of(50);
  const BatchOptions options{.batch_size = 8, .seed = 4};
  BatchStream stream(dataset, options);
  stream.start_epoch(2);
  stream.next();
  stream.start_epoch(3);
  CHECK(rest_of_epoch(stream, dataset) == epoch_of(dataset, options, 3));
  stream.start_epoch(3);
  CHECK(rest_of_epoch(stream, dataset) == epoch_of(dataset, options, 3));
}

TEST_CASE("an order drawn ahead is that of its epoch, and of no other") {
  const auto dataset = dataset_of(50);
  for (const bool shuffle : {true, false}) {
    const BatchOptions options{.batch_size = 8, .shuffle = shuffle, .seed = 4};
    const auto second = epoch_of(dataset, options, 2), third = epoch_of(dataset, options, 3);
    BatchStream stream(dataset, options);
    stream.prepare(2);
    stream.start_epoch(2);
    stream.prepare(3);
    CHECK(rest_of_epoch(stream, dataset) == second);
    stream.start_epoch(3);
    CHECK(rest_of_epoch(stream, dataset) == third);
    stream.prepare(3);
    stream.start_epoch(2);
    CHECK(rest_of_epoch(stream, dataset) == second);
    stream.prepare(2);
    stream.prepare(3);
    stream.start_epoch(3);
    CHECK(rest_of_epoch(stream, dataset) == third);
    stream.prepare(2);  // and never asked for
  }
}

TEST_CASE("drop_last leaves out the last batch when it is not full") {
  const auto dataset = dataset_of(50);
  const BatchOptions options{.batch_size = 8, .drop_last = true, .seed = 4};
  auto expected = epoch_of(dataset, {.batch_size = 8, .seed = 4}, 0);
  expected.pop_back();
  CHECK(epoch_of(dataset, options, 0) == expected);
  CHECK(BatchStream(dataset, options).batches() == 6);
  CHECK(BatchStream(dataset, {.batch_size = 10, .drop_last = true}).batches() == 5);
}

TEST_CASE("a stream over many shards is that over one") {
  at::manual_seed(1);
  const TemporaryFolder folder;
  const auto rows = random_rows(mixed_schema(), 43);
  write_split(folder.path(), mixed_schema(), Split::kTrain, rows, 5);
  const auto many = Dataset::open(folder.path(), Split::kTrain);
  const auto one = Dataset::from_tensors(mixed_schema(), rows);
  for (const bool shuffle : {true, false}) {
    BatchStream stream_many(many, {.batch_size = 8, .shuffle = shuffle});
    BatchStream stream_one(one, {.batch_size = 8, .shuffle = shuffle});
    while (const auto expected = stream_one.next()) CHECK(same_rows(stream_many.next().value(), *expected));
    CHECK_FALSE(stream_many.next().has_value());
  }
}

TEST_CASE("bad options and bad positions are refused") {
  const auto dataset = dataset_of(50);
  const auto refusal = [&](const BatchOptions& options) {
    return message_of<std::invalid_argument>([&] { BatchStream(dataset, options); });
  };
  CHECK(refusal({.batch_size = 0}) == "BatchOptions.batch_size must be at least 1, got 0");
  CHECK(refusal({.batch_size = -4}) == "BatchOptions.batch_size must be at least 1, got -4");
  CHECK(refusal({.batch_size = 51, .drop_last = true}) ==
        "BatchOptions.batch_size must be at most the 50 rows of the dataset with drop_last, got 51");
  CHECK(refusal({.batch_size = 51}).empty());
  BatchStream stream(dataset, {.batch_size = 8});
  const auto start = [&](int64_t epoch, int64_t batch) {
    return message_of<std::invalid_argument>([&] { stream.start_epoch(epoch, batch); });
  };
  CHECK(start(0, 7).empty());
  CHECK(start(-1, 0) == "BatchStream: epoch must be at least 0, got -1");
  CHECK(start(0, 8) == "BatchStream: batch must be in [0, 7], got 8");
  CHECK(start(0, -1) == "BatchStream: batch must be in [0, 7], got -1");
}

}  // namespace
}  // namespace afm
