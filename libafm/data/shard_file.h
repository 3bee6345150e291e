#pragma once

// Private: one shard of a split on disk.

#include <cstdint>
#include <filesystem>
#include <string>

#include "libafm/data/dataset.h"

namespace afm {

struct Shard {
  Batch rows;
  bool last = false;
  std::string digest = "", previous = "";  // chains the shards of one write (dataset.h)
};

std::filesystem::path shard_path(const std::filesystem::path& folder, Split split, int64_t shard);

// Digest of a shard after the shard with digest `previous`.
std::string digest_of(const std::string& previous, const Batch& rows);

void write_shard_file(const std::filesystem::path& path, const Schema& schema, Split split, int64_t number,
                      const Shard& shard);

// Checks everything but the chain. Views of the mapped file.
Shard read_shard_file(const std::filesystem::path& path, const Schema& schema, Split split, int64_t number);

}  // namespace afm
