#include "libafm/data/shard_file.h"

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/core/fail.h"
#include "libafm/core/hash.h"
#include "libafm/core/tensors.h"
#include "libafm/core/version.h"
#include "libafm/data/check_rows.h"

namespace afm {
namespace {

constexpr std::string_view kShardKind = "afm-shard";

std::string_view bytes_of(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.const_data_ptr()), tensor.nbytes()};
}

void expect(const SafetensorsFile& file, const std::string& key, std::string_view expected) {
  const auto& found = file.metadata_at(key);
  if (found != expected) {
    fail<FormatError>("{}: {} must be '{}', got '{}'", file.path().string(), key, expected, found);
  }
}

void check_version(const SafetensorsFile& file) {
  const auto& found = file.metadata_at("version");
  if (found != std::to_string(kFormatVersion)) {
    fail<FormatError>("{}: format version is {}, this libafm reads {}; use a matching libafm", file.path().string(),
                      found, kFormatVersion);
  }
}

at::Tensor tensor_of(const SafetensorsFile& file, const std::string& name, at::ScalarType dtype) {
  auto tensor = view_tensor(file, name);
  if (tensor.scalar_type() != dtype) {
    fail<FormatError>("{}: {} must be {}, got {}", file.path().string(), name, c10::toString(dtype),
                      c10::toString(tensor.scalar_type()));
  }
  return tensor;
}

}  // namespace

std::filesystem::path shard_path(const std::filesystem::path& folder, Split split, int64_t shard) {
  return folder / fmt::format("{}-{:05}.safetensors", name_of(split), shard);
}

std::string digest_of(const std::string& previous, const Batch& rows) {
  std::string parts = previous;
  for (const auto& tensor : {rows.ids, rows.dense, rows.label}) parts += hex_hash_of(bytes_of(tensor));
  return hex_hash_of(parts);
}

void write_shard_file(const std::filesystem::path& path, const Schema& schema, Split split, int64_t number,
                      const Shard& shard) {
  const Metadata metadata = {{"kind", std::string(kShardKind)},
                             {"version", std::to_string(kFormatVersion)},
                             {"split", std::string(name_of(split))},
                             {"shard", std::to_string(number)},
                             {"last", shard.last ? "true" : "false"},
                             {"rows", std::to_string(shard.rows.rows())},
                             {"schema", schema.fingerprint()},
                             {"digest", shard.digest},
                             {"previous", shard.previous}};
  save_tensors(path, metadata, {{"ids", shard.rows.ids}, {"dense", shard.rows.dense}, {"label", shard.rows.label}});
}

Shard read_shard_file(const std::filesystem::path& path, const Schema& schema, Split split, int64_t number) {
  const auto file = SafetensorsFile::open(path);
  expect(file, "kind", kShardKind);
  check_version(file);
  expect(file, "split", name_of(split));
  expect(file, "shard", std::to_string(number));
  if (file.metadata_at("schema") != schema.fingerprint()) {
    fail<DataError>("{}: was written for another schema than the schema.json beside it; prepare the dataset again",
                    path.string());
  }
  file.verify();
  Shard shard;
  shard.rows = {.ids = tensor_of(file, "ids", at::kInt),
                .dense = tensor_of(file, "dense", at::kFloat),
                .label = tensor_of(file, "label", at::kFloat)};
  shard.rows = normal_form(schema, shard.rows, path.string());
  expect(file, "rows", std::to_string(shard.rows.rows()));
  shard.last = file.metadata_at("last") == "true";
  shard.digest = file.metadata_at("digest");
  shard.previous = file.metadata_at("previous");
  return shard;
}

}  // namespace afm
