#pragma once

// Private: page faults of a training step on the CPU.

namespace afm {

// Makes the process keep freed memory for the next allocation. Does nothing but with glibc, and only once.
void keep_freed_memory();

}  // namespace afm
