#pragma once

// Private: loops over LibTorch's own threads.

#include <cstdint>

#include <c10/util/FunctionRef.h>

namespace afm::nn {

// Calls work(0) .. work(count - 1), in any order and on any of LibTorch's threads. A result that must not depend on
// their number is one where a task alone writes what it writes.
void parallel_for_each(int64_t count, c10::function_ref<void(int64_t)> work);

// The same over pieces [begin, end) of at most `size` of 0 .. count - 1; the pieces do not depend on the threads.
void parallel_for_pieces(int64_t count, int64_t size, c10::function_ref<void(int64_t begin, int64_t end)> work);

}  // namespace afm::nn
