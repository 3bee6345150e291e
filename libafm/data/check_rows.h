#pragma once

// Private: what every stored row must fulfil, checked where rows enter (Dataset, DatasetWriter).

#include <cstdint>
#include <string_view>

#include "libafm/data/batch.h"
#include "libafm/data/schema.h"

namespace afm {

// The rows as they are stored, but for int64 ids: CPU or the device they are on, dense float32 [n, Q], label float32
// [n], contiguous; an absent dense part of width 0 is filled in. Throws DataError for a wrong shape or type.
Batch normal_form(const Schema& schema, const Batch& rows, std::string_view where);

// Throws DataError that begins with `where` and names the field, its rule, the value and the row (counted from
// first_row): an id out of range, a label that is not 0 or 1, a dense value that is not finite.
void check_values(const Schema& schema, const Batch& rows, std::string_view where, int64_t first_row);

// Both of the above, and then ids int32 [n, S]: narrowed only once none can wrap around into a valid id.
Batch checked_rows(const Schema& schema, const Batch& rows, std::string_view where, int64_t first_row);

}  // namespace afm
