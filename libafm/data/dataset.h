#pragma once

// A dataset folder, written by `afm prepare`:
//   schema.json                       counted schema
//   vocabulary.safetensors            the encoder's values and counts
//   train-00000.safetensors ...       shards: ids int32 [n, S], dense float32 [n, Q], label float32 [n]
//   valid-..., test-...
// Each shard's metadata: kind "afm-shard", version, split, shard (0, 1, ...), last ("true" in the last one), rows,
// schema (fingerprint), digest (of this shard and all before it), previous (digest of the shard before it, "" in the
// first): shards of two different writes never open as one split.
//
//   auto train_set = Dataset::open("clicks", Split::kTrain);      // memory-mapped
//   auto batch = train_set.rows(index);                           // index [B] int64 -> Batch

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "libafm/data/batch.h"
#include "libafm/data/schema.h"

namespace afm {

enum class Split { kTrain, kValid, kTest };
constexpr std::array<std::string_view, 3> enum_names(std::type_identity<Split>) { return {"train", "valid", "test"}; }

class Dataset {
 public:
  // Checks every shard: checksum, fingerprint, shapes, ids within their field, labels 0 or 1, finite dense values.
  // Throws DataError or FormatError that names the file; a split without rows is a DataError.
  static Dataset open(const std::filesystem::path& folder, Split split);
  // From tensors in memory, labels included: the same checks. int64 ids are kept as int32.
  static Dataset from_tensors(Schema schema, Batch rows);

  const Schema& schema() const { return schema_; }
  int64_t size() const { return size_; }  // rows
  at::Device device() const;
  // A copy that lives on `device` as a whole (one shard).
  Dataset to(at::Device device) const;

  // index [B] int64 on the device of the data, any order; throws std::out_of_range.
  Batch rows(const at::Tensor& index) const;
  Batch range(int64_t begin, int64_t end) const;  // 0 <= begin <= end <= size(); a view when in one shard
  double click_rate() const;                      // mean label

 private:
  friend class BatchStream;
  friend class StreamedBatches;
  Dataset(Schema schema, std::vector<Batch> shards);
  Batch gather(const at::Tensor& index) const;  // rows() that trusts its index: no wait for the device
  Schema schema_;
  std::vector<Batch> shards_;    // more than one only on the CPU
  std::vector<int64_t> starts_;  // first row of each shard, then size()
  int64_t size_ = 0;
};

// Writes one split of a dataset folder (created when absent; schema.json is the caller's), in shards of bounded size.
// REQUIRES: append any number of times, then finish() once; one writer at a time per folder and split.
// Without finish() no shard of the split is visible and earlier shards stay; a crash within finish() leaves the old
// split, the new one, or one that Dataset::open refuses.
class DatasetWriter {
 public:
  DatasetWriter(std::filesystem::path folder, Schema schema, Split split, int64_t rows_per_shard = 1 << 20);
  ~DatasetWriter();
  DatasetWriter(const DatasetWriter&) = delete;
  DatasetWriter& operator=(const DatasetWriter&) = delete;
  // Copies the rows. Throws DataError for what Dataset::open would refuse; the writer is then as before.
  void append(const Batch& rows);
  // Returns the number of rows written. Replaces the split's earlier shards. Throws DataError when there are no rows.
  int64_t finish();

 private:
  void write_shard(bool last);
  std::filesystem::path folder_;
  Schema schema_;
  Split split_;
  int64_t rows_per_shard_, rows_ = 0, buffered_ = 0, shards_ = 0;
  std::vector<Batch> buffer_;
  std::string digest_;  // of the last shard written
  bool finished_ = false;
};

}  // namespace afm
