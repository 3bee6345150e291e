#include "libafm/data/streamed_batches.h"

#include <algorithm>

#include <torch/cuda.h>
#include <catch2/catch_test_macros.hpp>

#include "libafm/data/batch_stream.h"
#include "tests/core/temporary_folder.h"
#include "tests/data/random_rows.h"

namespace afm {
namespace {

using testing::same_rows;
using testing::TemporaryFolder;

Schema schema_of(bool ids, bool dense) {
  if (ids && dense) return testing::mixed_schema();
  return ids ? testing::ids_only_schema() : testing::numbers_only_schema();
}

// A dataset of several files.
Dataset dataset_in(const TemporaryFolder& folder, const Schema& schema, int64_t rows, int64_t rows_per_shard) {
  testing::write_split(folder.path(), schema, Split::kTrain, testing::random_rows(schema, rows), rows_per_shard);
  return Dataset::open(folder.path(), Split::kTrain);
}

void require_batches_of(const Dataset& dataset, const BatchOptions& options, at::Device device, int64_t from) {
  BatchStream stream(dataset, options, device);
  StreamedBatches batches(dataset, device, options.batch_size);
  for (const int64_t epoch : {0, 1}) {
    stream.start_epoch(epoch, from);
    batches.start(stream.order().cpu());
    while (stream.advance()) {
      const Batch batch = batches.next();
      REQUIRE(batch.ids.device().type() == device.type());
      REQUIRE(same_rows(batch.to(at::kCPU), dataset.rows(stream.index().cpu())));
    }
  }
}

void require_any_dataset_streams_to(at::Device device) {
  at::manual_seed(1);
  for (const auto& [ids, dense] : {std::pair(true, true), {true, false}, {false, true}}) {
    for (const int64_t rows : {1, 40, 331}) {
      const TemporaryFolder folder;
      const Dataset dataset = dataset_in(folder, schema_of(ids, dense), rows, 50);
      for (const int64_t batch_size : {1, 7, 60, 400}) {
        for (const bool shuffle : {true, false}) {
          INFO(rows << " rows, batches of " << batch_size << (shuffle ? ", shuffled" : ""));
          const BatchOptions options{.batch_size = batch_size, .shuffle = shuffle, .drop_last = rows > batch_size};
          require_batches_of(dataset, options, device, 0);
          require_batches_of(dataset, options, device, BatchStream(dataset, options).batches() / 2);
        }
      }
    }
  }
}

TEST_CASE("streamed batches are the batches of the dataset, also in the middle of an epoch") {
  require_any_dataset_streams_to(at::kCPU);
}

TEST_CASE("streamed batches reach the device as they are", "[cuda]") {
  if (!torch::cuda::is_available()) SKIP("no CUDA device");
  require_any_dataset_streams_to(at::kCUDA);
}

TEST_CASE("an epoch of streamed batches may be given up at any batch") {
  at::manual_seed(2);
  const Dataset dataset =
      Dataset::from_tensors(testing::mixed_schema(), testing::random_rows(testing::mixed_schema(), 200));
  const at::Tensor order = at::randperm(200), other = at::randperm(200);
  for (const int64_t taken : {0, 1, 13, 20}) {
    StreamedBatches batches(dataset, at::kCPU, 10);
    batches.start(order);
    for (int64_t i = 0; i < taken; ++i) batches.next();
    batches.start(other);
    REQUIRE(same_rows(batches.next(), dataset.rows(other.slice(0, 0, 10))));
  }
}

TEST_CASE("a batch lies where the batch before it lay") {
  const Dataset dataset =
      Dataset::from_tensors(testing::mixed_schema(), testing::random_rows(testing::mixed_schema(), 95));
  StreamedBatches batches(dataset, at::kCPU, 10);
  batches.start(at::arange(95));
  const Batch first = batches.next();
  for (int64_t i = 1; i < 10; ++i) {
    const Batch batch = batches.next();
    REQUIRE(batch.rows() == std::min<int64_t>(10, 95 - i * 10));
    REQUIRE(batch.ids.const_data_ptr() == first.ids.const_data_ptr());
    REQUIRE(batch.dense.const_data_ptr() == first.dense.const_data_ptr());
    REQUIRE(batch.label.const_data_ptr() == first.label.const_data_ptr());
  }
}

}  // namespace
}  // namespace afm
