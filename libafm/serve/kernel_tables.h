#pragma once

// Private: one table of kernels per instruction set, each from a file compiled for it. Those files instantiate nothing
// that another file may also instantiate (standard library templates included): the linker keeps one of such twins, and
// the processor may lack its instructions.

#include "libafm/serve/kernels.h"

namespace afm::serve {

// How many rows a tile of a linear layer may have, in descending order down to 1: each is code of its own.
template <int Most, int... Lower>
struct Heights {
  static constexpr int kMost = Most;
};

const Kernels& kernels_portable();
#ifdef AFM_SERVE_X86  // defined by the build on x86-64
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
void linear_vnni(const PackedMatrix& matrix, const LinearCall& call);  // Kernels::linear
#endif

}  // namespace afm::serve
