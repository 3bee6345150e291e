#pragma once

// A dataset folder, written by `afm prepare`:
//   schema.json                       counted schema
//   vocabulary.safetensors            the encoder's values and counts
//   train-00000.safetensors ...       shards: ids int32 [n, S], dense float32 [n, Q], label float32 [n]
//   valid-..., test-...
// Each shard's metadata: kind "afm-shard", version, split, shard, shards (how many), rows, schema (fingerprint).
//
//   auto train_set = Dataset::open("clicks", Split::kTrain);      // memory-mapped
//   auto batch = train_set.rows(index);                           // index [B] int64 -> Batch

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <array>
#include <type_traits>
#include <vector>

#include "libafm/data/batch.h"
#include "libafm/data/encoder.h"
#include "libafm/data/schema.h"

namespace afm {

enum class Split { kTrain, kValid, kTest };
constexpr std::array<std::string_view, 3> enum_names(std::type_identity<Split>) { return {"train", "valid", "test"}; }

class Dataset {
 public:
  // Checks every shard: checksum, fingerprint, shapes, ids within their field, labels 0 or 1, finite dense values.
  // Throws DataError or FormatError that names the file; a split without rows is a DataError.
  static Dataset open(const std::filesystem::path& folder, Split split);
  // From tensors in memory: the same checks.
  static Dataset from_tensors(Schema schema, Batch rows);

  const Schema& schema() const { return schema_; }
  int64_t size() const { return size_; }                  // rows
  at::Device device() const;
  // A copy that lives on `device` as a whole (one shard).
  Dataset to(at::Device device) const;

  Batch rows(const at::Tensor& index) const;              // index [B] int64 on the device of the data
  Batch range(int64_t begin, int64_t end) const;          // 0 <= begin <= end <= size(); a view when in one shard
  double click_rate() const;                              // mean label

 private:
  Schema schema_;
  std::vector<Batch> shards_;
  std::vector<int64_t> starts_;                           // first row of each shard, then size()
  int64_t size_ = 0;
};

// Writes one split of a dataset folder, in shards of bounded size.
// REQUIRES: append any number of times, then finish() once; without finish() no shard of the split is visible.
class DatasetWriter {
 public:
  DatasetWriter(std::filesystem::path folder, Schema schema, Split split, int64_t rows_per_shard = 1 << 20);
  ~DatasetWriter();
  DatasetWriter(const DatasetWriter&) = delete;
  DatasetWriter& operator=(const DatasetWriter&) = delete;
  void append(const Batch& rows);
  // Returns the number of rows written. Replaces the split's earlier shards.
  int64_t finish();

 private:
  void flush();
  std::filesystem::path folder_;
  Schema schema_;
  Split split_;
  int64_t rows_per_shard_, rows_ = 0, buffered_ = 0, shards_ = 0;
  std::vector<Batch> buffer_;
};

}  // namespace afm
