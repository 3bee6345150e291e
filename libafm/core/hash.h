#pragma once

// Private: XXH3, the one hash of libafm: checksums, fingerprints, hashed ids, the split of a row.

#include <cstdint>
#include <string>
#include <string_view>

namespace afm {

uint64_t hash_of(std::string_view bytes);
// 16 hex digits of hash_of.
std::string hex_hash_of(std::string_view bytes);

}  // namespace afm
