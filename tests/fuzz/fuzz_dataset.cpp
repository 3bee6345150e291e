// Any bytes as the files of a dataset folder (schema, shard, vocabulary) and a raw value to encode: refused by an error
// of libafm, or rows and an encoder that can be used. Checksums and the schema's fingerprint are made right first, or
// nothing would reach what lies behind them; fuzz_safetensors tries those.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/ATen.h>

#include "libafm/core/error.h"
#include "libafm/data/dataset.h"
#include "libafm/data/encoder.h"
#include "tests/core/temporary_folder.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/parts.h"
#include "tests/fuzz/safetensors_bytes.h"

namespace {

enum Part : std::size_t { kSchema, kShard, kVocabulary, kValue, kParts };

void fit_to_schema(std::string& file, const std::string& schema) {
  try {
    afm::fuzz::replace_text(file, "schema", afm::schema_from_json(schema).fingerprint());
  } catch (const afm::Error&) {
  }
  afm::fuzz::seal(file);
}

void use(const afm::Dataset& data) {
  const auto rows = data.range(0, data.size());
  const auto reversed = data.rows(at::arange(data.size() - 1, -1, -1, at::kLong));
  if (!at::equal(reversed.ids.flip(0), rows.ids) || !at::equal(reversed.label.flip(0), rows.label)) std::abort();
  if (!(data.click_rate() >= 0 && data.click_rate() <= 1)) std::abort();
}

void encode(const afm::Encoder& encoder, std::string_view value) {
  const afm::Schema& schema = encoder.schema();
  for (std::size_t i = 0; i < schema.fields.size(); ++i) {
    const afm::FieldSpec& spec = schema.fields[i];
    if (!spec.has_ids()) continue;
    std::vector<int32_t> ids(static_cast<std::size_t>(spec.slots()));
    const auto field = static_cast<int64_t>(i);
    const std::span<const std::string_view> values(&value, 1);
    spec.kind == afm::FieldKind::kMulti ? encoder.encode_multi(field, values, ids)
                                        : encoder.encode_categorical(field, values, ids);
    for (const int32_t id : ids) {
      if (id < afm::kEmptySlot || id >= spec.cardinality) std::abort();
    }
  }
}

template <typename Work>
void attempt(Work work) {
  try {
    work();
  } catch (const afm::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const afm::testing::TemporaryFolder folder;
  auto parts = afm::fuzz::split_parts({reinterpret_cast<const char*>(data), size}, kParts);
  fit_to_schema(parts[kShard], parts[kSchema]);
  fit_to_schema(parts[kVocabulary], parts[kSchema]);
  afm::testing::write_bytes(folder / "schema.json", parts[kSchema]);
  afm::testing::write_bytes(folder / "train-00000.safetensors", parts[kShard]);
  attempt([] { use(afm::Dataset::open(folder.path(), afm::Split::kTrain)); });
  const afm::fuzz::MemoryFile vocabulary(parts[kVocabulary]);
  attempt([&] { encode(afm::Encoder::open(vocabulary.path(), afm::schema_from_json(parts[kSchema])), parts[kValue]); });
  return 0;
}

// Changes one part.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  auto parts = afm::fuzz::split_parts({reinterpret_cast<const char*>(data), size}, kParts);
  const std::size_t chosen = seed % kParts;
  std::string& part = parts[chosen];
  const std::size_t others = afm::fuzz::join_parts(parts).size() - part.size();
  if (others >= max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::vector<std::uint8_t> room(part.begin(), part.end());
  room.resize(std::max(part.size(), max_size - others));
  const bool is_file = chosen == kShard || chosen == kVocabulary;
  const std::size_t changed = is_file ? afm::fuzz::mutate_file(room.data(), part.size(), room.size(), seed / kParts)
                                      : LLVMFuzzerMutate(room.data(), part.size(), room.size());
  part.assign(reinterpret_cast<const char*>(room.data()), changed);
  const std::string joined = afm::fuzz::join_parts(parts);
  if (joined.size() > max_size) return size;
  std::copy(joined.begin(), joined.end(), data);
  return joined.size();
}
