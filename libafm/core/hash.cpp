#include "libafm/core/hash.h"

#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

namespace afm {

uint64_t hash_of(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

std::string hex_hash_of(std::string_view bytes) { return fmt::format("{:016x}", hash_of(bytes)); }

}  // namespace afm
