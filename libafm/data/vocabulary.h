#pragma once

// Private: vocabularies as tensors, and their hash in the schema.

#include <string>

#include "libafm/core/tensors.h"
#include "libafm/data/encoder.h"

namespace afm {

// Hash of the values in id order: what FieldSpec.vocabulary holds.
std::string hash_of_values(const std::vector<std::string>& values);

// Throws DataError when a vocabulary does not fit the counted field.
void check_vocabulary(const FieldSpec& spec, const Vocabulary& vocabulary);

// "<name>.values" uint8, "<name>.ends" int64, "<name>.counts" int64.
void put_vocabulary(TensorMap& tensors, const std::string& name, const Vocabulary& vocabulary);
Vocabulary read_vocabulary(const SafetensorsFile& file, const std::string& name);

}  // namespace afm
