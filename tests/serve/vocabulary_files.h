#pragma once

// Dataset folders made by hand, without LibTorch: their vocabulary file alone.

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "libafm/data/schema.h"
#include "tests/serve/model_files.h"

namespace afm::serve::testing {

using Values = std::map<std::string, std::vector<std::string>>;  // of a field, in id order

// The values of click_schema(): bytes of any kind.
Values click_values();

// FOLDER/vocabulary.safetensors, as afm::Encoder::save writes it.
ModelParts vocabulary_parts(const Schema& schema, const Values& values);
void write_vocabulary(const std::filesystem::path& folder, const ModelParts& parts);

}  // namespace afm::serve::testing
