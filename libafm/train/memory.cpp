#include "libafm/train/memory.h"

#include <cstdlib>
#include <mutex>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace afm {

// Note [Page faults]
// A step allocates activations and gradients of some megabytes and frees them at its end. By default glibc maps and
// unmaps such blocks each time, and the kernel zeroes every page at its first touch: a third of the time of a backward
// pass. With both thresholds raised the blocks stay in the heap, and the next step finds them mapped.
void keep_freed_memory() {
#ifdef __GLIBC__
  static std::once_flag once;
  std::call_once(once, [] {
    constexpr int kKept = 1 << 30, kLargestOfOldGlibc = 32 << 20;
    if (mallopt(M_MMAP_THRESHOLD, kKept) == 0) mallopt(M_MMAP_THRESHOLD, kLargestOfOldGlibc);
    mallopt(M_TRIM_THRESHOLD, kKept);
  });
#endif
}

}  // namespace afm
