#pragma once

// Packs a model file: the encoder goes into it, so that raw values can be scored with that file alone.

#include <filesystem>

namespace afm::serve {

// `model` with the vocabulary of the dataset folder that it was trained on (`dataset`/vocabulary.safetensors), written
// to `packed`, which may be `model`: whole or not at all. Throws IoError (cannot be read or written), FormatError (no
// model file, no vocabulary, damaged) or DataError (the vocabulary belongs to another schema).
void pack(const std::filesystem::path& model, const std::filesystem::path& dataset,
          const std::filesystem::path& packed);

}  // namespace afm::serve
