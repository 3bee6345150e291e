#include "libafm/data/dataset.h"

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/data/batch_rows.h"
#include "libafm/data/check_rows.h"
#include "libafm/data/shard_file.h"

namespace afm {
namespace {

void put(Batch& target, const at::Tensor& places, const Batch& rows) {
  target.ids.index_copy_(0, places, rows.ids);
  target.dense.index_copy_(0, places, rows.dense);
  target.label.index_copy_(0, places, rows.label);
}

/// A table, a file of a dataset or some other folder, given for a dataset folder.
void check_is_dataset(const std::filesystem::path& folder) {
  std::error_code error;  // no permission: for read_schema to say
  const auto schema = folder / "schema.json";
  if (std::filesystem::exists(schema, error) || error || !std::filesystem::exists(folder)) return;
  fail<DataError>("'{}' is no dataset folder, as afm prepare makes one of a table: {} is missing", folder.string(),
                  schema.string());
}

}  // namespace

Dataset::Dataset(Schema schema, std::vector<Batch> shards) : schema_(std::move(schema)), shards_(std::move(shards)) {
  for (const auto& shard : shards_) {
    starts_.push_back(size_);
    size_ += shard.rows();
  }
  starts_.push_back(size_);
}

Dataset Dataset::open(const std::filesystem::path& folder, Split split) {
  check_is_dataset(folder);
  const auto schema = read_schema(folder / "schema.json");
  check_counted(schema);
  std::vector<Batch> shards;
  std::string previous;
  int64_t first_row = 0;
  for (bool last = false; !last;) {
    const auto number = static_cast<int64_t>(shards.size());
    const auto path = shard_path(folder, split, number);
    if (!std::filesystem::exists(path)) {
      if (number == 0)
        fail<DataError>("{} has no {} split: {} is missing", folder.string(), name_of(split), path.string());
      fail<FormatError>("{} is missing: the {} split goes on after shard {}", path.string(), name_of(split),
                        number - 1);
    }
    const auto shard = read_shard_file(path, schema, split, number);
    if (shard.previous != previous) {
      fail<FormatError>("{} does not belong to the shard before it; prepare the dataset again", path.string());
    }
    check_values(schema, shard.rows, path.string(), first_row);
    first_row += shard.rows.rows();
    previous = shard.digest;
    last = shard.last;
    shards.push_back(shard.rows);
  }
  if (first_row == 0) fail<DataError>("{}: the {} split has no rows", folder.string(), name_of(split));
  return {schema, std::move(shards)};
}

Dataset Dataset::from_tensors(Schema schema, Batch rows) {
  check_counted(schema);
  rows = checked_rows(schema, rows, "rows", 0);
  if (rows.rows() == 0) fail<DataError>("rows: a dataset must have at least one row");
  return {std::move(schema), {std::move(rows)}};
}

at::Device Dataset::device() const { return shards_.front().label.device(); }

Dataset Dataset::to(at::Device device) const {
  std::vector<Batch> moved;
  for (const auto& shard : shards_) moved.push_back(shard.to(device));
  return {schema_, {moved.size() == 1 ? moved.front() : join_rows(moved)}};
}

Batch Dataset::rows(const at::Tensor& index) const {
  if (index.numel() > 0) {
    const auto low = index.min().item<int64_t>(), high = index.max().item<int64_t>();
    if (low < 0 || high >= size_) {
      fail<std::out_of_range>("Dataset.rows: row {} is out of range, there are {}", low < 0 ? low : high, size_);
    }
  }
  return gather(index);
}

Batch Dataset::gather(const at::Tensor& index) const {
  if (shards_.size() == 1) return select_rows(shards_.front(), index);
  const auto inner = at::tensor(std::vector<int64_t>(starts_.begin() + 1, starts_.end() - 1), at::kLong);
  const auto shard_of_row = at::bucketize(index, inner, /*out_int32=*/false, /*right=*/true);
  Batch result = select_rows(shards_.front(), at::zeros_like(index));
  for (std::size_t shard = 0; shard < shards_.size(); ++shard) {
    const auto places = shard_of_row.eq(static_cast<int64_t>(shard)).nonzero().flatten();
    if (places.numel() == 0) continue;
    put(result, places, select_rows(shards_[shard], index.index_select(0, places) - starts_[shard]));
  }
  return result;
}

Batch Dataset::range(int64_t begin, int64_t end) const {
  if (begin < 0 || begin > end || end > size_) {
    fail<std::out_of_range>("Dataset.range: [{}, {}) is out of range, there are {} rows", begin, end, size_);
  }
  std::vector<Batch> parts;
  for (std::size_t shard = 0; shard < shards_.size(); ++shard) {
    const auto low = std::max(begin, starts_[shard]), high = std::min(end, starts_[shard + 1]);
    if (low < high) parts.push_back(slice_rows(shards_[shard], low - starts_[shard], high - starts_[shard]));
  }
  if (parts.empty()) return slice_rows(shards_.front(), 0, 0);
  return parts.size() == 1 ? parts.front() : join_rows(parts);
}

double Dataset::click_rate() const {
  double clicks = 0;
  for (const auto& shard : shards_) clicks += shard.label.sum(at::kDouble).item<double>();
  return clicks / static_cast<double>(size_);
}

}  // namespace afm
