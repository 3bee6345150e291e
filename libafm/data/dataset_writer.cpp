#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/data/batch_rows.h"
#include "libafm/data/check_rows.h"
#include "libafm/data/dataset.h"
#include "libafm/data/shard_file.h"

namespace afm {
namespace {

// A shard has its final name only when the split is complete.
std::filesystem::path partial_path(const std::filesystem::path& folder, Split split, int64_t shard) {
  return shard_path(folder, split, shard).string() + ".partial";
}

Batch copy_of_rows(const Batch& rows, int64_t begin, int64_t end) { return join_rows({slice_rows(rows, begin, end)}); }

}  // namespace

DatasetWriter::DatasetWriter(std::filesystem::path folder, Schema schema, Split split, int64_t rows_per_shard)
    : folder_(std::move(folder)), schema_(std::move(schema)), split_(split), rows_per_shard_(rows_per_shard) {
  if (rows_per_shard_ < 1) {
    fail<std::invalid_argument>("DatasetWriter.rows_per_shard must be at least 1, got {}", rows_per_shard_);
  }
  check_counted(schema_);
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error) fail<IoError>("cannot make the folder '{}': {}", folder_.string(), error.message());
}

DatasetWriter::~DatasetWriter() {
  if (finished_) return;
  std::error_code ignored;
  for (int64_t shard = 0; shard < shards_; ++shard) {
    std::filesystem::remove(partial_path(folder_, split_, shard), ignored);
  }
}

void DatasetWriter::append(const Batch& rows) {
  const auto where = fmt::format("{} split", name_of(split_));
  const auto normal = checked_rows(schema_, rows.to(at::kCPU), where, rows_);
  buffer_.push_back(copy_of_rows(normal, 0, normal.rows()));
  rows_ += normal.rows();
  buffered_ += normal.rows();
  while (buffered_ > rows_per_shard_) write_shard(/*last=*/false);  // the last one is known only in finish()
}

void DatasetWriter::write_shard(bool last) {
  const auto rows = join_rows(buffer_);
  const auto count = std::min(rows_per_shard_, buffered_);
  Shard shard{.rows = copy_of_rows(rows, 0, count), .last = last, .previous = digest_};
  shard.digest = digest_of(digest_, shard.rows);
  write_shard_file(partial_path(folder_, split_, shards_), schema_, split_, shards_, shard);
  ++shards_;
  digest_ = shard.digest;
  buffered_ -= count;
  buffer_.clear();
  if (buffered_ > 0) buffer_.push_back(copy_of_rows(rows, count, count + buffered_));
}

int64_t DatasetWriter::finish() {
  if (finished_) fail<Error>("DatasetWriter.finish was called already");
  if (rows_ == 0) fail<DataError>("the {} split has no rows", name_of(split_));
  write_shard(/*last=*/true);
  for (int64_t shard = 0; shard < shards_; ++shard) {
    std::error_code error;
    std::filesystem::rename(partial_path(folder_, split_, shard), shard_path(folder_, split_, shard), error);
    if (error) fail<IoError>("cannot write '{}': {}", shard_path(folder_, split_, shard).string(), error.message());
  }
  finished_ = true;
  for (int64_t shard = shards_; std::filesystem::remove(shard_path(folder_, split_, shard)); ++shard) {
  }
  return rows_;
}

}  // namespace afm
