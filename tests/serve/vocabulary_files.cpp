#include "tests/serve/vocabulary_files.h"

#include <cstdint>

namespace afm::serve::testing {

Values click_values() {
  using namespace std::string_literals;
  return {{"user", {"u1", "7", "2.5", "\0a"s, "\xff\xfe", "true"}},
          {"genres", {"drama", "noir", "sci fi", "9"}},
          {"item", {"é", "long " + std::string(1000, 'x'), "b"}}};
}

ModelParts vocabulary_parts(const Schema& schema, const Values& values) {
  ModelParts parts{{{"kind", "afm-vocabulary"}, {"version", "1"}, {"schema", schema.fingerprint()}}, {}};
  for (const auto& [name, texts] : values) {
    std::vector<char> bytes;
    std::vector<int64_t> ends;
    for (const std::string& text : texts) {
      bytes.insert(bytes.end(), text.begin(), text.end());
      ends.push_back(static_cast<int64_t>(bytes.size()));
    }
    const auto count = static_cast<int64_t>(ends.size());
    parts.tensors[name + ".values"] = tensor_of(DType::kU8, {static_cast<int64_t>(bytes.size())}, bytes);
    parts.tensors[name + ".ends"] = tensor_of(DType::kI64, {count}, ends);
    parts.tensors[name + ".counts"] = tensor_of(DType::kI64, {count}, std::vector<int64_t>(ends.size(), 1));
  }
  return parts;
}

void write_vocabulary(const std::filesystem::path& folder, const ModelParts& parts) {
  std::filesystem::create_directories(folder);
  parts.write(folder / "vocabulary.safetensors");
}

}  // namespace afm::serve::testing
